-- retention_relays
SELECT relay_cursors.xid,
    relay_cursors.position
FROM relay_cursors;
