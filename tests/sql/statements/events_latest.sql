-- events_latest
-- $1: param_1
-- $2: param_2
SELECT anon_1.xid,
    anon_1.position,
    anon_1.id,
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
FROM (
    SELECT anon_2.xid AS xid,
        anon_2.position AS position,
        anon_2.id AS id
    FROM (
        SELECT events.xid AS xid,
            events.position AS position,
            events.id AS id
        FROM events
        WHERE events.xid < event_xid(pg_snapshot_xmin(pg_current_snapshot()))
        ORDER BY events.xid DESC,
            events.position DESC
        LIMIT $1::INTEGER
    ) AS anon_2
    UNION ALL
    SELECT swept_events.xid AS xid,
        swept_events.position AS position,
        CAST(NULL AS UUID) AS id
    FROM swept_events
) AS anon_1
JOIN swept_events ON true
ORDER BY anon_1.xid DESC,
    anon_1.position DESC
LIMIT $2::INTEGER;
