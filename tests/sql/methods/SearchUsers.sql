-- SearchUsers

-- Without a transaction:

-- search_users
WITH ranked AS (
    (
        SELECT users.id AS id,
            CAST(ts_rank(users.search, (
                SELECT to_tsquery('pg_catalog.simple'::regconfig, $1) AS to_tsquery_1
            )) + ts_rank(users.search, (
                SELECT to_tsquery('pg_catalog.simple'::regconfig, $2) AS to_tsquery_2
            )) + CAST(users.username = $3::VARCHAR COLLATE "C" AS INTEGER) AS REAL) AS rank
        FROM users
        WHERE (users.search @@ (
            SELECT to_tsquery('pg_catalog.simple'::regconfig, $1) AS to_tsquery_1
        ))
            AND users.state != $4::VARCHAR
        LIMIT $5::INTEGER
    )
    UNION
    SELECT users.id AS id,
        CAST(ts_rank(users.search, (
            SELECT to_tsquery('pg_catalog.simple'::regconfig, $1) AS to_tsquery_1
        )) + ts_rank(users.search, (
            SELECT to_tsquery('pg_catalog.simple'::regconfig, $2) AS to_tsquery_2
        )) + CAST(users.username = $3::VARCHAR COLLATE "C" AS INTEGER) AS REAL) AS rank
    FROM users
    WHERE (users.search @@ (
        SELECT to_tsquery('pg_catalog.simple'::regconfig, $1) AS to_tsquery_1
    ))
        AND users.state != $4::VARCHAR
        AND users.username = $3::VARCHAR COLLATE "C"
)
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
    found.rank,
    count.matches
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
    LIMIT $6::BIGINT
) AS found ON true
LEFT OUTER JOIN users ON users.id = found.id
ORDER BY found.rank DESC,
    found.id DESC;
