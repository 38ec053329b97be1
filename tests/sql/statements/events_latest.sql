-- events_latest
-- $1: param_1
-- $2: param_2
SELECT anon_1.xid,
    anon_1.position
FROM (
    SELECT anon_2.xid AS xid,
        anon_2.position AS position
    FROM (
        SELECT events.xid AS xid,
            events.position AS position
        FROM events
        WHERE events.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY events.xid DESC,
            events.position DESC
        LIMIT $1::INTEGER
    ) AS anon_2
    UNION ALL
    SELECT swept_events.xid AS xid,
        swept_events.position AS position
    FROM swept_events
) AS anon_1
ORDER BY anon_1.xid DESC,
    anon_1.position DESC
LIMIT $2::INTEGER;
