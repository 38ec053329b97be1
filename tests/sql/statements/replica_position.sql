-- replica_position
SELECT pg_is_in_recovery() AS is_replica,
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') AS position,
    (
        SELECT upper(lpad(to_hex(timeline_id), 8, '0'))
        FROM pg_control_checkpoint()
    ) AS timeline,
    (
        SELECT system_identifier
        FROM pg_control_system()
    ) AS cluster,
    (
        SELECT oid
        FROM pg_database
        WHERE datname = current_database()
    ) AS database;
