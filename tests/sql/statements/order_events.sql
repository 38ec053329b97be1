-- order_events
-- $1: aggregate_type_1
-- $2: param_1
-- $3: param_2
-- $4: id_1
-- $5: type_1_1
-- $6: type_1_2
-- $7: type_2_1
-- $8: type_2_2
-- $9: type_2_3
-- $10: type_2_4
-- $11: type_2_5
-- $12: type_2_6
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
