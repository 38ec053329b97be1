-- retention_delete_request_ids
-- $1: retention
-- $2: param_1
DELETE FROM request_ids
WHERE (request_ids.caller, request_ids.method, request_ids.request_id) IN (
    SELECT request_ids.caller,
        request_ids.method,
        request_ids.request_id
    FROM request_ids
    WHERE request_ids.create_time < now() - $1::INTERVAL
    LIMIT $2::INTEGER
    FOR UPDATE SKIP LOCKED
);
