-- TransferOrders, with a request id

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

SELECT users.id,
    users.email,
    users.username,
    users.full_name,
    users.superuser,
    users.state,
    users.undelete_state,
    users.version,
    users.create_time,
    users.update_time,
    users.delete_time,
    users.purge_time,
    users.message
FROM users
WHERE users.id = $1::UUID
FOR NO KEY UPDATE;

SELECT user_profiles.user_id,
    user_profiles.bio,
    user_profiles.avatar_url
FROM user_profiles
WHERE user_profiles.user_id IN ($1::UUID);

SELECT users.id,
    users.email,
    users.username,
    users.full_name,
    users.superuser,
    users.state,
    users.undelete_state,
    users.version,
    users.create_time,
    users.update_time,
    users.delete_time,
    users.purge_time,
    users.message
FROM users
WHERE users.id = $1::UUID
FOR SHARE;

SELECT orders.id
FROM orders
WHERE orders.user_id = $1::UUID
ORDER BY orders.id
FOR NO KEY UPDATE;

SELECT mine.external_ref,
    count(*) OVER() AS count
FROM orders AS mine,
    orders AS other
WHERE mine.user_id = $1::UUID
    AND mine.external_ref IS NOT NULL
    AND mine.status != $2::VARCHAR
    AND other.status != $3::VARCHAR
    AND other.user_id = $4::UUID
    AND other.external_ref = mine.external_ref
ORDER BY mine.external_ref
LIMIT $5::INTEGER;

UPDATE orders
SET user_id=$1::UUID,
    version= (orders.version + $2::BIGINT),
    update_time=greatest(orders.update_time, $3::TIMESTAMP WITH TIME ZONE)
WHERE orders.user_id = $4::UUID
RETURNING orders.id,
    orders.status,
    orders.update_time;

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
