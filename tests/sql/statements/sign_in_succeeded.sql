-- sign_in_succeeded
-- $1: slot
DELETE FROM sign_in_attempts
WHERE sign_in_attempts.slot = $1::INTEGER;
