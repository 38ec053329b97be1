-- events_earliest
SELECT swept_events.xid,
    swept_events.position,
    CAST(NULL AS UUID) AS id,
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
FROM swept_events;
