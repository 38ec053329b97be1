-- VerifyPassword

-- Without a transaction:

-- begin_sign_in
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

-- credentials.by_email
SELECT users.id,
    users.username,
    users.state,
    CAST(EXTRACT(epoch FROM users.create_time) * 1000000 AS BIGINT) AS create_time,
    users.message,
    CASE WHEN (users.message IS NULL) THEN users.email END AS email,
    CASE WHEN (users.message IS NULL) THEN users.full_name END AS full_name,
    CASE WHEN (users.message IS NULL) THEN users.superuser END AS superuser,
    CASE WHEN (users.message IS NULL) THEN users.version END AS version,
    CASE WHEN (users.message IS NULL) THEN CAST(EXTRACT(epoch FROM users.update_time) * 1000000 AS BIGINT) END AS update_time,
    CASE WHEN (users.message IS NULL) THEN CAST(EXTRACT(epoch FROM users.delete_time) * 1000000 AS BIGINT) END AS delete_time,
    CASE WHEN (users.message IS NULL) THEN CAST(EXTRACT(epoch FROM users.purge_time) * 1000000 AS BIGINT) END AS purge_time,
    CASE WHEN (users.message IS NULL) THEN (
        SELECT user_profiles.bio
        FROM user_profiles
        WHERE user_profiles.user_id = users.id
    ) END AS bio,
    CASE WHEN (users.message IS NULL) THEN (
        SELECT user_profiles.avatar_url
        FROM user_profiles
        WHERE user_profiles.user_id = users.id
    ) END AS avatar_url,
    user_passwords.password_hash
FROM users
JOIN user_passwords ON users.id = user_passwords.user_id
WHERE lower(users.email COLLATE "C") = $1;

-- sign_in_succeeded
DELETE FROM sign_in_attempts
WHERE sign_in_attempts.slot = $1::INTEGER;
