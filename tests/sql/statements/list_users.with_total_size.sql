-- list_users.with_total_size
-- $1: param_1
-- $2: row_limit
-- $3: coalesce_1
-- $4: max_bytes
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
    part.row_bytes,
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
    SELECT measured.id AS id,
        measured.username AS username,
        measured.state AS state,
        measured.create_time AS create_time,
        measured.message AS message,
        measured.email AS email,
        measured.full_name AS full_name,
        measured.superuser AS superuser,
        measured.version AS version,
        measured.update_time AS update_time,
        measured.delete_time AS delete_time,
        measured.purge_time AS purge_time,
        measured.bio AS bio,
        measured.avatar_url AS avatar_url,
        measured.row_bytes AS row_bytes,
        true AS is_row
    FROM (
        SELECT candidates.id AS id,
            candidates.username AS username,
            candidates.state AS state,
            candidates.create_time AS create_time,
            candidates.message AS message,
            candidates.email AS email,
            candidates.full_name AS full_name,
            candidates.superuser AS superuser,
            candidates.version AS version,
            candidates.update_time AS update_time,
            candidates.delete_time AS delete_time,
            candidates.purge_time AS purge_time,
            candidates.bio AS bio,
            candidates.avatar_url AS avatar_url,
            candidates.key_0 AS key_0,
            candidates.key_1 AS key_1,
            coalesce(octet_length(candidates.message), 150 + coalesce(octet_length(candidates.email), 0) + coalesce(octet_length(candidates.username), 0) + coalesce(octet_length(candidates.full_name), 0) + coalesce(octet_length(candidates.bio), 0) + coalesce(octet_length(candidates.avatar_url), 0)) + 3 AS row_bytes,
            sum(coalesce(octet_length(candidates.message), 150 + coalesce(octet_length(candidates.email), 0) + coalesce(octet_length(candidates.username), 0) + coalesce(octet_length(candidates.full_name), 0) + coalesce(octet_length(candidates.bio), 0) + coalesce(octet_length(candidates.avatar_url), 0)) + 3) OVER(ORDER BY candidates.key_0 DESC, candidates.key_1 DESC ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
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
                ) END AS avatar_url,
                users.create_time AS key_0,
                users.id AS key_1
            FROM users
            ORDER BY users.create_time DESC,
                users.id DESC
            LIMIT $2::BIGINT
        ) AS candidates
    ) AS measured
    WHERE coalesce(measured.bytes_before, $3::INTEGER) <= $4::BIGINT
    ORDER BY measured.key_0 DESC,
        measured.key_1 DESC
) AS part ON true
ORDER BY part.create_time DESC,
    part.id DESC;
