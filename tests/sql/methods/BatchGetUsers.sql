-- BatchGetUsers

-- Without a transaction:

-- users_by_ids
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
    ) END AS avatar_url
FROM users
WHERE users.id = ANY(CAST(
    (
        SELECT $1::VARCHAR AS anon_1
    ) AS UUID[]
));
