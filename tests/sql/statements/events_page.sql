-- events_page
-- $1: aggregate_type_1
-- $2: param_1
-- $3: xid
-- $4: position
-- $5: type_1_1
-- $6: type_1_2
-- $7: type_2_1
-- $8: type_2_2
-- $9: type_2_3
-- $10: type_2_4
-- $11: type_2_5
-- $12: type_2_6
SELECT log.xid AS swept_xid,
    log.position AS swept_position,
    log.epoch,
    log.next_xid,
    log.database,
    log.timeline,
    (
        SELECT events.create_time
        FROM events
        WHERE events.xid >= event_xid(pg_snapshot_xmin(pg_current_snapshot()))
        ORDER BY events.xid,
            events.position
        LIMIT 1
    ) AS waiting_since,
    part.position,
    part.id,
    part.xid,
    part.aggregate_type,
    part.aggregate_id,
    part.type,
    part.actor,
    part.create_time,
    part.changes,
    part.on_behalf_of,
    CASE WHEN (part.aggregate_type = $1::VARCHAR) THEN coalesce(part.user_id, (
        SELECT orders.user_id
        FROM orders
        WHERE orders.id = part.aggregate_id
    )) END AS user_id,
    CASE WHEN (part.aggregate_type = $1::VARCHAR) THEN coalesce(part.status, CASE WHEN (part.type IN ($5::VARCHAR, $6::VARCHAR)) THEN $2::VARCHAR WHEN (part.type IN ($7::VARCHAR, $8::VARCHAR, $9::VARCHAR, $10::VARCHAR, $11::VARCHAR, $12::VARCHAR)) THEN part.type ELSE CAST(
        (
            SELECT orders.status
            FROM orders
            WHERE orders.id = part.aggregate_id
        ) AS TEXT
    ) END) END AS status
FROM (
    SELECT swept_events.id AS id,
        swept_events.xid AS xid,
        swept_events.position AS position,
        swept_events.epoch AS epoch,
        event_xid(pg_snapshot_xmax(pg_current_snapshot())) AS next_xid,
        (
            SELECT hashtextextended(concat_ws(' ', control.system_identifier, database.oid, swept_events.epoch), 0)
            FROM pg_control_system() control,
                pg_database database
            WHERE database.datname = current_database()
        ) AS database,
        CASE WHEN pg_is_in_recovery() THEN (
            SELECT timeline_id
            FROM pg_control_checkpoint()
        ) ELSE CAST(CAST('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) AS bit(32)) AS int) END AS timeline
    FROM swept_events
    LIMIT 1
) AS log
LEFT OUTER JOIN (
    SELECT events.position AS position,
        events.id AS id,
        events.xid AS xid,
        events.aggregate_type AS aggregate_type,
        events.aggregate_id AS aggregate_id,
        events.type AS type,
        events.actor AS actor,
        events.create_time AS create_time,
        events.changes AS changes,
        events.user_id AS user_id,
        events.status AS status,
        events.on_behalf_of AS on_behalf_of
    FROM events
    WHERE (events.xid, events.position) > ($3, $4::BIGINT)
        AND events.xid < event_xid(pg_snapshot_xmin(pg_current_snapshot()))
    ORDER BY events.xid,
        events.position
    LIMIT 500
) AS part ON true
ORDER BY part.xid,
    part.position;
