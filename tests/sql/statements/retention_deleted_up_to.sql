-- retention_deleted_up_to
SELECT swept_events.xid,
    swept_events.position
FROM swept_events
FOR UPDATE SKIP LOCKED;
