-- SearchOrderNotes

-- Without a transaction:

WITH ranked AS (
    SELECT order_notes.id AS id,
        CAST(ts_rank(order_notes.search, (
            SELECT CAST($2 AS TSQUERY) AS anon_1
        ) || (
            SELECT CAST($2 AS TSQUERY) AS anon_1
        )) + ts_rank(order_notes.search, (
            SELECT CAST($3 AS TSQUERY) AS anon_2
        ) || (
            SELECT CAST($3 AS TSQUERY) AS anon_2
        )) AS REAL) AS rank
    FROM order_notes
    WHERE (order_notes.search @@ (
        SELECT CAST($2 AS TSQUERY) AS anon_1
    ))
        AND order_notes.order_id = $4::UUID
        AND order_notes.state = $5::VARCHAR
    LIMIT $6::INTEGER
)
SELECT measured.id,
    measured.order_id,
    measured.author_id,
    measured.body,
    measured.state,
    measured.version,
    measured.create_time,
    measured.update_time,
    measured.publish_time,
    measured.rank,
    measured.matches,
    measured.row_bytes
FROM (
    SELECT candidates.id AS id,
        candidates.order_id AS order_id,
        candidates.author_id AS author_id,
        candidates.body AS body,
        candidates.state AS state,
        candidates.version AS version,
        candidates.create_time AS create_time,
        candidates.update_time AS update_time,
        candidates.publish_time AS publish_time,
        candidates.rank AS rank,
        candidates.matches AS matches,
        candidates.key_0 AS key_0,
        candidates.key_1 AS key_1,
        coalesce(octet_length(candidates.body), 0) + 300 + 2300 AS row_bytes,
        sum(coalesce(octet_length(candidates.body), 0) + 300 + 2300) OVER(ORDER BY candidates.key_0 DESC, candidates.key_1 DESC ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
    FROM (
        SELECT order_notes.id AS id,
            order_notes.order_id AS order_id,
            order_notes.author_id AS author_id,
            order_notes.body AS body,
            order_notes.state AS state,
            order_notes.version AS version,
            order_notes.create_time AS create_time,
            order_notes.update_time AS update_time,
            order_notes.publish_time AS publish_time,
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
        LEFT OUTER JOIN order_notes ON order_notes.id = found.id
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $8::INTEGER) <= $9::BIGINT
ORDER BY measured.key_0 DESC,
    measured.key_1 DESC;
