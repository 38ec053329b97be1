-- PurgeUser, with a request id

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

SELECT DISTINCT orders.credit_user_id
FROM orders
WHERE orders.user_id = $1::UUID
    AND orders.credit_user_id != $2::UUID
    AND orders.credit_state = $3::VARCHAR;

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
FOR UPDATE;

SELECT user_profiles.user_id,
    user_profiles.bio,
    user_profiles.avatar_url
FROM user_profiles
WHERE user_profiles.user_id IN ($1::UUID);

SELECT DISTINCT orders.credit_user_id
FROM orders
WHERE orders.user_id = $1::UUID
    AND orders.credit_user_id != $2::UUID
    AND orders.credit_state = $3::VARCHAR;

SELECT (EXISTS (
    SELECT *
    FROM orders
    WHERE orders.user_id = $1::UUID
        AND orders.status IN ('PENDING', 'CONFIRMED', 'PROCESSING')
))
    OR (EXISTS (
        SELECT *
        FROM credit_accounts
        WHERE credit_accounts.user_id = $2::UUID
            AND (credit_accounts.available > $3::INTEGER OR credit_accounts.held > $4::INTEGER)
    )) AS anon_1;

SELECT orders.id
FROM orders
WHERE orders.id IN (
    SELECT orders.id
    FROM orders
    WHERE orders.user_id = $1::UUID
    UNION
    SELECT orders.id
    FROM orders
    WHERE orders.credit_user_id = $2::UUID
    UNION
    SELECT order_notes.order_id
    FROM order_notes
    WHERE order_notes.author_id = $3::UUID
)
ORDER BY orders.id
FOR UPDATE;

SELECT orders.id
FROM orders
WHERE orders.user_id = $1::UUID
    AND orders.credit_user_id != $2::UUID
    AND orders.credit_state = $3::VARCHAR
UNION
SELECT orders.id
FROM orders
WHERE orders.user_id != $4::UUID
    AND orders.credit_user_id = $5::UUID;

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
WHERE order_notes.author_id = $1::UUID
    AND orders.user_id != $2::UUID
ORDER BY order_notes.id
FOR UPDATE OF order_notes;

DELETE FROM events
WHERE events.aggregate_id IN (
    SELECT orders.id
    FROM orders
    WHERE orders.user_id = $1::UUID
);

DELETE FROM events
WHERE events.aggregate_id = $1::UUID;

DELETE FROM request_ids
WHERE request_ids.resource_id IN (
    SELECT orders.id
    FROM orders
    WHERE orders.user_id = $1::UUID
);

DELETE FROM request_ids
WHERE request_ids.resource_id = $1::UUID;

DELETE FROM request_ids
WHERE request_ids.other_resource_id = $1::UUID;

INSERT INTO credit_entries(id, transaction_id, account, type, currency, amount, description, actor, create_time)
SELECT gen_random_uuid() AS gen_random_uuid_1,
    credit_entries.transaction_id,
    $1::VARCHAR AS anon_1,
    credit_entries.type,
    credit_entries.currency,
    credit_entries.amount,
    $2::VARCHAR AS anon_2,
    $3::VARCHAR AS anon_3,
    credit_entries.create_time
FROM credit_entries
WHERE credit_entries.user_id = $4::UUID
    AND (EXISTS (
        SELECT *
        FROM credit_entries AS other
        WHERE other.transaction_id = credit_entries.transaction_id
            AND other.user_id != $5::UUID
    ));

DELETE FROM credit_entries
WHERE credit_entries.user_id = $1::UUID
    OR credit_entries.user_id IS NULL
    AND credit_entries.transaction_id IN (
        SELECT other.transaction_id
        FROM credit_entries AS other
        WHERE other.user_id = $2::UUID
    )
    AND NOT (EXISTS (
        SELECT *
        FROM credit_entries AS other
        WHERE other.transaction_id = credit_entries.transaction_id
            AND other.user_id != $3::UUID
    ));

DELETE FROM credit_accounts
WHERE credit_accounts.user_id = $1::UUID;

DELETE FROM orders
WHERE orders.user_id = $1::UUID
RETURNING orders.id;

DELETE FROM users
WHERE users.id = $1::UUID;

INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status, on_behalf_of)
VALUES ($1::UUID, $2::VARCHAR, $3::UUID, $4::VARCHAR, $5::VARCHAR, $6::TIMESTAMP WITH TIME ZONE, $7::JSONB, $8::UUID, $9::VARCHAR, $10::UUID)
RETURNING events.position;

UPDATE request_ids
SET response=$1::BYTEA
WHERE request_ids.caller = $2::VARCHAR
    AND request_ids.method = $3::VARCHAR
    AND request_ids.request_id = $4::UUID;

COMMIT;
