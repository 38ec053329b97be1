-- owners_of_emails
-- $1: keys
SELECT users.id
FROM users
WHERE lower(users.email COLLATE "C") = ANY($1::TEXT[]);
