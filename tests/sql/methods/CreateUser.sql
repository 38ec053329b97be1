-- CreateUser, with a request id

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

INSERT INTO users(id, email, username, full_name, superuser, state, undelete_state, version, create_time, update_time, delete_time, purge_time, search, message)
VALUES ($1::UUID, $2::VARCHAR, $3::VARCHAR COLLATE "C", $4::VARCHAR, $5::BOOLEAN, $6::VARCHAR, $7::VARCHAR, $8::BIGINT, $9::TIMESTAMP WITH TIME ZONE, $10::TIMESTAMP WITH TIME ZONE, $11::TIMESTAMP WITH TIME ZONE, $12::TIMESTAMP WITH TIME ZONE, $13, $14::BYTEA);

INSERT INTO user_profiles(user_id, bio, avatar_url)
VALUES ($1::UUID, $2::VARCHAR, $3::VARCHAR);

INSERT INTO user_passwords(user_id, password_hash, update_time)
VALUES ($1::UUID, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE);

INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status, on_behalf_of)
VALUES ($1::UUID, $2::VARCHAR, $3::UUID, $4::VARCHAR, $5::VARCHAR, $6::TIMESTAMP WITH TIME ZONE, $7::JSONB, $8::UUID, $9::VARCHAR, $10::UUID)
RETURNING events.position;

UPDATE request_ids
SET response=$1::BYTEA,
    resource_id=$2::UUID
WHERE request_ids.caller = $3::VARCHAR
    AND request_ids.method = $4::VARCHAR
    AND request_ids.request_id = $5::UUID;

COMMIT;
