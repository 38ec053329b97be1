-- relay_create_cursor
-- $1: name
INSERT INTO relay_cursors(name, xid, position)
SELECT $1::VARCHAR AS anon_1,
    swept_events.xid,
    swept_events.position
FROM swept_events
FOR SHARE
ON CONFLICT DO NOTHING;
