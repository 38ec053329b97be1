-- relay_cursor
-- $1: name
SELECT relay_cursors.xid,
    relay_cursors.position
FROM relay_cursors
WHERE relay_cursors.name = $1::VARCHAR;
