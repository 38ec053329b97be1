-- ListOrderEvents

-- Without a transaction:

-- order_events
SELECT part.position,
    part.id,
    part.xid,
    part.aggregate_type,
    part.aggregate_id,
    part.type,
    part.actor,
    part.create_time,
    part.changes,
    part.user_id,
    part.status,
    part.row_bytes
FROM orders
LEFT OUTER JOIN LATERAL (
    SELECT events.position AS position,
        events.id AS id,
        events.xid AS xid,
        events.aggregate_type AS aggregate_type,
        events.aggregate_id AS aggregate_id,
        events.type AS type,
        events.actor AS actor,
        events.create_time AS create_time,
        events.changes AS changes,
        CASE WHEN (events.aggregate_type = $1::VARCHAR) THEN coalesce(events.user_id, orders.user_id) END AS user_id,
        CASE WHEN (events.aggregate_type = $1::VARCHAR) THEN coalesce(events.status, CASE WHEN (events.type IN ($5::VARCHAR, $6::VARCHAR)) THEN $2::VARCHAR WHEN (events.type IN ($7::VARCHAR, $8::VARCHAR, $9::VARCHAR, $10::VARCHAR, $11::VARCHAR, $12::VARCHAR)) THEN events.type ELSE CAST(orders.status AS TEXT) END) END AS status,
        octet_length(CAST(events.changes AS TEXT)) + 300 AS row_bytes
    FROM events
    WHERE events.aggregate_id = orders.id
    ORDER BY events.position
    LIMIT $3::INTEGER
) AS part ON true
WHERE orders.id = $4::UUID
ORDER BY part.position;
