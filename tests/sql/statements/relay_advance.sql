-- relay_advance
-- $1: name
-- $2: xid
-- $3: position
INSERT INTO relay_cursors(name, xid, position, update_time)
VALUES ($1::VARCHAR, $2, $3::BIGINT, now())
ON CONFLICT (name) DO UPDATE SET xid = $2,
    position = $3::BIGINT,
    update_time = now();
