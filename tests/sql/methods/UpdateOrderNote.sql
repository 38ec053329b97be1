-- UpdateOrderNote, with a request id

-- In a transaction:

BEGIN;

SELECT set_config('statement_timeout', CAST(CAST($1 AS int) AS text), true),
    CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', CAST(CAST($2 AS int) AS text), true) END,
    set_config('commerce.keeps_messages', '1', true),
    set_config('commerce.writes_search', '1', true);

INSERT INTO request_ids(caller, method, request_id, body_digest)
VALUES ($1::VARCHAR, $2::VARCHAR, $3::UUID, $4::BYTEA)
ON CONFLICT DO NOTHING
RETURNING request_ids.request_id;

SELECT order_notes.id,
    order_notes.order_id,
    order_notes.author_id,
    order_notes.body,
    order_notes.state,
    order_notes.version,
    order_notes.create_time,
    order_notes.update_time,
    order_notes.publish_time
FROM order_notes
JOIN orders ON orders.id = order_notes.order_id
WHERE order_notes.id = $1::UUID
FOR NO KEY UPDATE OF orders,
    order_notes;

UPDATE order_notes
SET body=$1::VARCHAR,
    version=$2::BIGINT,
    update_time=$3::TIMESTAMP WITH TIME ZONE,
    search=$4
WHERE order_notes.id = $5::UUID;

INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status, on_behalf_of)
VALUES ($1::UUID, $2::VARCHAR, $3::UUID, $4::VARCHAR, $5::VARCHAR, $6::TIMESTAMP WITH TIME ZONE, $7::JSONB, $8::UUID, $9::VARCHAR, $10::UUID)
RETURNING events.position;

UPDATE request_ids
SET response=$1::BYTEA,
    resource_id=$2::UUID,
    other_resource_id=$3::UUID
WHERE request_ids.caller = $4::VARCHAR
    AND request_ids.method = $5::VARCHAR
    AND request_ids.request_id = $6::UUID;

COMMIT;
