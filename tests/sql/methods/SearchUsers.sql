-- SearchUsers

-- Without a transaction:

-- search_users
WITH ranked AS (
    (
        SELECT users.id AS id,
            CAST(ts_rank(users.search, (
                SELECT CAST($2 AS TSQUERY) AS anon_1
            ) || (
                SELECT CAST($2 AS TSQUERY) AS anon_1
            )) + ts_rank(users.search, (
                SELECT CAST($3 AS TSQUERY) AS anon_2
            ) || (
                SELECT CAST($3 AS TSQUERY) AS anon_2
            )) + CAST(users.username = $4::VARCHAR COLLATE "C" AS INTEGER) AS REAL) AS rank
        FROM users
        WHERE (users.search @@ (
            SELECT CAST($2 AS TSQUERY) AS anon_1
        ))
            AND users.state != $5::VARCHAR
        LIMIT $6::INTEGER
    )
    UNION
    SELECT users.id AS id,
        CAST(ts_rank(users.search, (
            SELECT CAST($2 AS TSQUERY) AS anon_1
        ) || (
            SELECT CAST($2 AS TSQUERY) AS anon_1
        )) + ts_rank(users.search, (
            SELECT CAST($3 AS TSQUERY) AS anon_2
        ) || (
            SELECT CAST($3 AS TSQUERY) AS anon_2
        )) + CAST(users.username = $4::VARCHAR COLLATE "C" AS INTEGER) AS REAL) AS rank
    FROM users
    WHERE (users.search @@ (
        SELECT CAST($2 AS TSQUERY) AS anon_1
    ))
        AND users.state != $5::VARCHAR
        AND users.username = $4::VARCHAR COLLATE "C"
)
SELECT measured.id,
    measured.username,
    measured.state,
    measured.create_time,
    measured.message,
    measured.email,
    measured.full_name,
    measured.superuser,
    measured.version,
    measured.update_time,
    measured.delete_time,
    measured.purge_time,
    measured.bio,
    measured.avatar_url,
    measured.rank,
    measured.matches,
    measured.row_bytes
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
        candidates.rank AS rank,
        candidates.matches AS matches,
        candidates.key_0 AS key_0,
        candidates.key_1 AS key_1,
        coalesce(octet_length(candidates.message), 150 + coalesce(octet_length(candidates.email), 0) + coalesce(octet_length(candidates.username), 0) + coalesce(octet_length(candidates.full_name), 0) + coalesce(octet_length(candidates.bio), 0) + coalesce(octet_length(candidates.avatar_url), 0)) + 3 + 15 AS row_bytes,
        sum(coalesce(octet_length(candidates.message), 150 + coalesce(octet_length(candidates.email), 0) + coalesce(octet_length(candidates.username), 0) + coalesce(octet_length(candidates.full_name), 0) + coalesce(octet_length(candidates.bio), 0) + coalesce(octet_length(candidates.avatar_url), 0)) + 3 + 15) OVER(ORDER BY candidates.key_0 DESC, candidates.key_1 DESC ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
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
            found.rank AS rank,
            count.matches AS matches,
            found.rank AS key_0,
            found.id AS key_1
        FROM (
            SELECT count(*) AS matches
            FROM ranked
        ) AS count
        LEFT OUTER JOIN (
            SELECT ranked.rank AS rank,
                ranked.id AS id
            FROM ranked
            ORDER BY ranked.rank DESC,
                ranked.id DESC
            LIMIT $7::BIGINT
        ) AS found ON true
        LEFT OUTER JOIN users ON users.id = found.id
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $8::INTEGER) <= $9::BIGINT
ORDER BY measured.key_0 DESC,
    measured.key_1 DESC;
