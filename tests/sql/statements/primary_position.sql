-- primary_position
SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') AS position,
left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) AS timeline,
    (
        SELECT system_identifier
        FROM pg_control_system()
    ) AS cluster,
    (
        SELECT oid
        FROM pg_database
        WHERE datname = current_database()
    ) AS database;
