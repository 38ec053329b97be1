-- owners_of_usernames
-- $1: keys
SELECT users.id
FROM users
WHERE users.username = ANY($1::TEXT[]);
