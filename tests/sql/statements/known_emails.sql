-- known_emails
-- $1: emails
SELECT lower(users.email) AS email
FROM users
WHERE lower(users.email) = ANY($1::TEXT[]);
