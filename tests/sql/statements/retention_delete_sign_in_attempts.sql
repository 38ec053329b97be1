-- retention_delete_sign_in_attempts
-- $1: after
-- $2: param_1
DELETE FROM sign_in_attempts
WHERE sign_in_attempts.slot IN (
    SELECT sign_in_attempts.slot
    FROM sign_in_attempts
    WHERE sign_in_attempts.slot > $1::INTEGER
        AND sign_in_attempts.expire_time < now()
    ORDER BY sign_in_attempts.slot
    LIMIT $2::INTEGER
    FOR UPDATE SKIP LOCKED
)
RETURNING sign_in_attempts.slot;
