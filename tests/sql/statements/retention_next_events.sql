-- retention_next_events
-- $1: retention
-- $2: deleted_xid
-- $3: deleted_position
-- $4: param_1
SELECT events.xid,
    events.position,
    events.create_time < now() - $1::INTERVAL AS is_old
FROM events
WHERE (events.xid, events.position) > ($2, $3::BIGINT)
    AND events.xid < event_xid(pg_snapshot_xmin(pg_current_snapshot()))
ORDER BY events.xid,
    events.position
LIMIT $4::INTEGER;
