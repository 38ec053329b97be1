-- search_notes.of_an_order_next_page
-- $1: ts_headline_1
-- $2: left_1
-- $3: websearch_to_tsquery_2
-- $4: query
-- $5: ts_headline_2
-- $6: left_2
-- $7: order_id
-- $8: state_1
-- $9: param_1
-- $10: after_0
-- $11: after_1
-- $12: row_limit
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
    WHERE (ranked.rank, ranked.id) < ($10::FLOAT, $11::UUID)
    ORDER BY ranked.rank DESC,
        ranked.id DESC
    LIMIT $12::BIGINT
) AS found ON true
LEFT OUTER JOIN order_notes ON order_notes.id = found.id
ORDER BY found.rank DESC,
    found.id DESC;
