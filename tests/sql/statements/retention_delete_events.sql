-- retention_delete_events
-- $1: deleted_xid
-- $2: deleted_position
-- $3: last_xid
-- $4: last_position
DELETE FROM events
WHERE (events.xid, events.position) > ($1, $2::BIGINT)
    AND (events.xid, events.position) <= ($3, $4::BIGINT);
