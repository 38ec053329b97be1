-- retention_advance_deleted_up_to
-- $1: last_xid
-- $2: last_position
UPDATE swept_events
SET xid=$1,
    position=$2::BIGINT;
