-- SearchOrderNotes

-- Without a transaction:

WITH ranked AS (
    SELECT order_notes.id AS id,
        ts_rank(order_notes.search, (
            SELECT websearch_to_tsquery($4::REGCONFIG, $5) AS websearch_to_tsquery_1
        )) AS rank
    FROM order_notes
    WHERE (order_notes.search @@ (
        SELECT websearch_to_tsquery($4::REGCONFIG, $5) AS websearch_to_tsquery_1
    ))
        AND order_notes.order_id = $8::UUID
        AND order_notes.state = $9::VARCHAR
    LIMIT $10::INTEGER
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
    measured.snippet,
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
        candidates.snippet AS snippet,
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
        left(ts_headline($2::REGCONFIG, left(order_notes.body, $3::INTEGER), (
            SELECT websearch_to_tsquery($4::REGCONFIG, $5) AS websearch_to_tsquery_1
        ), $6::VARCHAR), $7::INTEGER) AS snippet,
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
            LIMIT $11::BIGINT
        ) AS found ON true
        LEFT OUTER JOIN order_notes ON order_notes.id = found.id
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $12::INTEGER) <= $13::BIGINT
ORDER BY measured.key_0 DESC,
    measured.key_1 DESC;
