-- CreateOrder, with a request id
-- Every 32nd order also takes the statement next_order_numbers.

-- On the fast path:

-- place_order_with_request_id
WITH limited AS MATERIALIZED (
    SELECT set_config($20::VARCHAR, $21::VARCHAR, true) AS "limit",
        set_config($22::VARCHAR, $23::VARCHAR, true) AS message_version
),
customer AS (
    SELECT users.id AS id
    FROM limited
    JOIN users ON true
    WHERE users.id = $4::UUID
        AND users.state = $24::VARCHAR
    FOR SHARE OF users SKIP LOCKED
),
claimed AS (
    INSERT INTO request_ids(caller, method, request_id, body_digest, response, resource_id)
    SELECT $14::VARCHAR AS anon_14,
        $15::VARCHAR AS anon_15,
        $16::UUID AS anon_16,
        $17::BYTEA AS anon_17,
        $18::BYTEA AS anon_18,
        $19::UUID AS anon_19
    FROM customer
    ON CONFLICT DO NOTHING
    RETURNING request_ids.request_id
),
placed AS (
    INSERT INTO orders(id, order_number, user_id, status, currency, total_amount, external_ref, metadata, version, create_time, update_time, message)
    SELECT $2::UUID AS anon_2,
        $3::VARCHAR COLLATE "C" AS anon_3,
        $4::UUID AS anon_4,
        $5::VARCHAR AS anon_5,
        $6::VARCHAR AS anon_6,
        $7::NUMERIC(19, 4) AS anon_7,
        $8::VARCHAR AS anon_8,
        $9::JSONB AS anon_9,
        $10::BIGINT AS anon_10,
        $11::TIMESTAMP WITH TIME ZONE AS anon_11,
        $12::TIMESTAMP WITH TIME ZONE AS anon_12,
        $13::BYTEA AS anon_13
    FROM claimed
    RETURNING orders.id
),
items AS (
    INSERT INTO order_items(order_id, id, product_id, name, quantity, unit_price, subtotal)
    SELECT item.order_id AS order_id,
        item.id AS id,
        item.product_id AS product_id,
        item.name AS name,
        item.quantity AS quantity,
        item.unit_price AS unit_price,
        item.subtotal AS subtotal
    FROM (
        SELECT anon_1.order_id AS order_id,
            anon_1.id AS id,
            anon_1.product_id AS product_id,
            anon_1.name AS name,
            anon_1.quantity AS quantity,
            anon_1.unit_price AS unit_price,
            anon_1.subtotal AS subtotal
        FROM json_to_recordset(CAST($1::VARCHAR AS JSON)) AS anon_1(order_id UUID, id UUID, product_id TEXT, name TEXT, quantity INTEGER, unit_price NUMERIC(19, 4), subtotal NUMERIC(19, 4))
    ) AS item
    JOIN placed ON true
),
event AS (
    INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status, on_behalf_of)
    SELECT $25::UUID AS anon_20,
        $26::VARCHAR AS anon_21,
        $27::UUID AS anon_22,
        $28::VARCHAR AS anon_23,
        $29::VARCHAR AS anon_24,
        $30::TIMESTAMP WITH TIME ZONE AS anon_25,
        $31::JSONB AS anon_26,
        $32::UUID AS anon_27,
        $33::VARCHAR AS anon_28,
        $34::UUID AS anon_29
    FROM placed
)
SELECT placed.id
FROM placed;

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
FOR SHARE;

INSERT INTO orders(id, order_number, user_id, status, currency, total_amount, external_ref, metadata, tracking_number, cancel_reason, credit_state, credit_user_id, credit_expire_time, version, create_time, update_time, message)
VALUES ($1::UUID, $2::VARCHAR COLLATE "C", $3::UUID, $4::VARCHAR, $5::VARCHAR, $6::NUMERIC(19, 4), $7::VARCHAR, $8::JSONB, $9::VARCHAR, $10::VARCHAR, $11::VARCHAR, $12::UUID, $13::TIMESTAMP WITH TIME ZONE, $14::BIGINT, $15::TIMESTAMP WITH TIME ZONE, $16::TIMESTAMP WITH TIME ZONE, $17::BYTEA);

INSERT INTO order_items(order_id, id, product_id, name, quantity, unit_price, subtotal)
SELECT order_id,
    id,
    product_id,
    name,
    quantity,
    unit_price,
    subtotal
FROM unnest($1::UUID[], $2::UUID[], $3::TEXT[], $4::TEXT[], $5::INTEGER[], $6::NUMERIC(19, 4)[], $7::NUMERIC(19, 4)[]) AS anon_1(order_id, id, product_id, name, quantity, unit_price, subtotal);

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
