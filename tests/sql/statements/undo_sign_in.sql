-- undo_sign_in
-- $1: attempts_1
-- $2: number
-- $3: slot
-- $4: attempts_2
UPDATE sign_in_attempts
SET attempts= (sign_in_attempts.attempts - $1::INTEGER),
    retry_time=CASE WHEN (sign_in_attempts.attempts = $2::INTEGER) THEN clock_timestamp() ELSE sign_in_attempts.retry_time END
WHERE sign_in_attempts.slot = $3::INTEGER
    AND sign_in_attempts.attempts > $4::INTEGER;
