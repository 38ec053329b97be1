-- SearchOrderNotes

-- Without a transaction:

WITH ranked AS (
    SELECT order_notes.id AS id,
        ts_rank(order_notes.search, (
            SELECT websearch_to_tsquery($3::REGCONFIG, $4) AS websearch_to_tsquery_1
        )) AS rank
    FROM order_notes
    WHERE (order_notes.search @@ (
        SELECT websearch_to_tsquery($3::REGCONFIG, $4) AS websearch_to_tsquery_1
    ))
        AND order_notes.order_id = $7::UUID
        AND order_notes.state = $8::VARCHAR
    LIMIT $9::INTEGER
)
SELECT order_notes.id,
    order_notes.order_id,
    order_notes.author_id,
    order_notes.body,
    order_notes.state,
    order_notes.version,
    order_notes.create_time,
    order_notes.update_time,
    order_notes.publish_time,
left(ts_headline($1::REGCONFIG, left(order_notes.body, $2::INTEGER), (
    SELECT websearch_to_tsquery($3::REGCONFIG, $4) AS websearch_to_tsquery_1
), $5::VARCHAR), $6::INTEGER) AS snippet,
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
    LIMIT $10::BIGINT
) AS found ON true
LEFT OUTER JOIN order_notes ON order_notes.id = found.id
ORDER BY found.rank DESC,
    found.id DESC;
