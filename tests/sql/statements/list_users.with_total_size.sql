-- list_users.with_total_size
-- $1: row_limit
SELECT part.id,
    part.username,
    part.state,
    part.create_time,
    part.message,
    part.email,
    part.full_name,
    part.superuser,
    part.version,
    part.update_time,
    part.delete_time,
    part.purge_time,
    part.bio,
    part.avatar_url,
    part.is_row,
    count.total_size
FROM (
    SELECT count(*) AS total_size
    FROM (
        SELECT users.id AS id,
            users.username AS username,
            users.state AS state,
            CAST(EXTRACT(epoch FROM users.create_time) * 1000000 AS BIGINT) AS create_time,
            users.message AS message,
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
    ) AS counted
) AS count
LEFT OUTER JOIN (
    SELECT users.id AS id,
        users.username AS username,
        users.state AS state,
        CAST(EXTRACT(epoch FROM users.create_time) * 1000000 AS BIGINT) AS create_time,
        users.message AS message,
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
        true AS is_row
    FROM users
    ORDER BY users.create_time DESC,
        users.id DESC
    LIMIT $1::BIGINT
) AS part ON true
ORDER BY part.create_time DESC,
    part.id DESC;
