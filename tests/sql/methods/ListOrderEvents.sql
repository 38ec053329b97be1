-- ListOrderEvents

-- Without a transaction:

-- order_events
SELECT measured.position,
    measured.id,
    measured.xid,
    measured.aggregate_type,
    measured.aggregate_id,
    measured.type,
    measured.actor,
    measured.create_time,
    measured.changes,
    measured.on_behalf_of,
    measured.user_id,
    measured.status,
    measured.row_bytes
FROM (
    SELECT candidates.position AS position,
        candidates.id AS id,
        candidates.xid AS xid,
        candidates.aggregate_type AS aggregate_type,
        candidates.aggregate_id AS aggregate_id,
        candidates.type AS type,
        candidates.actor AS actor,
        candidates.create_time AS create_time,
        candidates.changes AS changes,
        candidates.on_behalf_of AS on_behalf_of,
        candidates.user_id AS user_id,
        candidates.status AS status,
        candidates.key_0 AS key_0,
        coalesce(octet_length(CAST(candidates.changes AS TEXT)), 0) + coalesce(octet_length(candidates.actor), 0) + 300 AS row_bytes,
        sum(coalesce(octet_length(CAST(candidates.changes AS TEXT)), 0) + coalesce(octet_length(candidates.actor), 0) + 300) OVER(ORDER BY candidates.key_0 ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
    FROM (
        SELECT part.position AS position,
            part.id AS id,
            part.xid AS xid,
            part.aggregate_type AS aggregate_type,
            part.aggregate_id AS aggregate_id,
            part.type AS type,
            part.actor AS actor,
            part.create_time AS create_time,
            part.changes AS changes,
            part.on_behalf_of AS on_behalf_of,
            part.user_id AS user_id,
            part.status AS status,
            part.position AS key_0
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
                events.on_behalf_of AS on_behalf_of,
                CASE WHEN (events.aggregate_type = $2::VARCHAR) THEN coalesce(events.user_id, orders.user_id) END AS user_id,
                CASE WHEN (events.aggregate_type = $2::VARCHAR) THEN coalesce(events.status, CASE WHEN (events.type IN ($8::VARCHAR, $9::VARCHAR)) THEN $3::VARCHAR WHEN (events.type IN ($10::VARCHAR, $11::VARCHAR, $12::VARCHAR, $13::VARCHAR, $14::VARCHAR, $15::VARCHAR)) THEN events.type ELSE CAST(orders.status AS TEXT) END) END AS status
            FROM events
            WHERE events.aggregate_id = orders.id
            ORDER BY events.position
            LIMIT $4::INTEGER
        ) AS part ON true
        WHERE orders.id = $5::UUID
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $6::INTEGER) <= $7::BIGINT
ORDER BY measured.key_0;
