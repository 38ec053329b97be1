-- UndeleteUser, with a request id

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

UPDATE users
SET state=$1::VARCHAR,
    undelete_state=$2::VARCHAR,
    version=$3::BIGINT,
    update_time=$4::TIMESTAMP WITH TIME ZONE,
    delete_time=$5::TIMESTAMP WITH TIME ZONE,
    purge_time=$6::TIMESTAMP WITH TIME ZONE,
    search=$7,
    message=$8::BYTEA
WHERE users.id = $9::UUID;

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
