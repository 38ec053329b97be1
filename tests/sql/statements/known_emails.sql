-- known_emails
-- $1: emails
SELECT lower(users.email COLLATE "C") AS email
FROM users
WHERE lower(users.email COLLATE "C") = ANY($1::TEXT[]);
