-- begin_sign_in
-- $1: slot
-- $2: param_1
-- $3: delays
-- $4: param_2
-- $5: forget
-- $6: param_3
-- $7: attempts_1
WITH waiting AS (
    SELECT sign_in_attempts.retry_time AS retry_time
    FROM sign_in_attempts
    WHERE sign_in_attempts.slot = $1::INTEGER
        AND sign_in_attempts.retry_time > clock_timestamp()
        AND sign_in_attempts.retry_time <= clock_timestamp() + ($3::INTERVAL[])[cardinality(($3::INTERVAL[])) ]
),
counted AS (
    INSERT INTO sign_in_attempts(slot, attempts, retry_time, expire_time)
    SELECT $1::INTEGER AS anon_1,
        $2::INTEGER AS anon_2,
        clock_timestamp() + ($3::INTERVAL[])[least($4::INTEGER, cardinality(($3::INTERVAL[]))) ] AS anon_3,
        clock_timestamp() + ($3::INTERVAL[])[least($4::INTEGER, cardinality(($3::INTERVAL[]))) ] + $5::INTERVAL AS anon_4
    WHERE NOT (EXISTS (
        SELECT waiting.retry_time
        FROM waiting
    ))
    ON CONFLICT (slot) DO UPDATE SET attempts = CASE WHEN (sign_in_attempts.expire_time < clock_timestamp()) THEN $6::INTEGER ELSE sign_in_attempts.attempts + $7::INTEGER END,
        retry_time = (clock_timestamp() + ($3::INTERVAL[])[least(CASE WHEN (sign_in_attempts.expire_time < clock_timestamp()) THEN $6::INTEGER ELSE sign_in_attempts.attempts + $7::INTEGER END, cardinality(($3::INTERVAL[]))) ]),
        expire_time = (clock_timestamp() + ($3::INTERVAL[])[least(CASE WHEN (sign_in_attempts.expire_time < clock_timestamp()) THEN $6::INTEGER ELSE sign_in_attempts.attempts + $7::INTEGER END, cardinality(($3::INTERVAL[]))) ] + $5::INTERVAL)
    WHERE NOT (sign_in_attempts.retry_time > clock_timestamp() AND sign_in_attempts.retry_time <= clock_timestamp() + ($3::INTERVAL[])[cardinality(($3::INTERVAL[])) ])
    RETURNING sign_in_attempts.attempts
)
SELECT (
    SELECT counted.attempts
    FROM counted
) AS number,
    (
        SELECT EXTRACT(epoch FROM waiting.retry_time - clock_timestamp()) AS anon_5
        FROM waiting
    ) AS wait_seconds;
