-- events_earliest
SELECT swept_events.xid,
    swept_events.position
FROM swept_events;
