-- DeliverOrder, with a request id

-- On the fast path:

-- encoded_orders_by_ids
SELECT orders.id,
    orders.user_id,
    orders.status,
    orders.currency,
    orders.total_amount,
    orders.tracking_number,
    orders.cancel_reason,
    orders.credit_state,
    orders.credit_user_id,
    orders.credit_expire_time,
    orders.version,
    orders.update_time,
    orders.message
FROM orders
WHERE orders.id = ANY(CAST(
    (
        SELECT $1::VARCHAR AS anon_1
    ) AS UUID[]
));

-- change_order_with_request_id
WITH limited AS MATERIALIZED (
    SELECT set_config($17::VARCHAR, $18::VARCHAR, true) AS "limit",
        set_config($19::VARCHAR, $20::VARCHAR, true) AS message_version
),
allowed AS (
    SELECT orders.id AS id
    FROM limited
    JOIN orders ON true
    WHERE orders.id = $21::UUID
        AND orders.version = $22::BIGINT
        AND orders.message IS NOT NULL
    FOR NO KEY UPDATE OF orders SKIP LOCKED
),
claimed AS (
    INSERT INTO request_ids(caller, method, request_id, body_digest, response, resource_id)
    SELECT $23::VARCHAR AS anon_11,
        $24::VARCHAR AS anon_12,
        $25::UUID AS anon_13,
        $26::BYTEA AS anon_14,
        $27::BYTEA AS anon_15,
        $28::UUID AS anon_16
    FROM allowed
    ON CONFLICT DO NOTHING
    RETURNING request_ids.request_id
),
changed AS (
    UPDATE orders
    SET status=$11::VARCHAR,
        tracking_number=$12::VARCHAR,
        cancel_reason=$13::VARCHAR,
        version=$14::BIGINT,
        update_time=$15::TIMESTAMP WITH TIME ZONE,
        message=$16::BYTEA
    FROM allowed
    WHERE orders.id = allowed.id
        AND (EXISTS (
            SELECT claimed.request_id
            FROM claimed
        ))
    RETURNING orders.id
),
event AS (
    INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status, on_behalf_of)
    SELECT $1::UUID AS anon_1,
        $2::VARCHAR AS anon_2,
        $3::UUID AS anon_3,
        $4::VARCHAR AS anon_4,
        $5::VARCHAR AS anon_5,
        $6::TIMESTAMP WITH TIME ZONE AS anon_6,
        $7::JSONB AS anon_7,
        $8::UUID AS anon_8,
        $9::VARCHAR AS anon_9,
        $10::UUID AS anon_10
    FROM changed
)
SELECT changed.id
FROM changed;

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

SELECT users.id
FROM users
JOIN orders ON orders.credit_user_id = users.id
WHERE orders.id = $1::UUID
FOR KEY SHARE OF users;

SELECT orders.id
FROM orders
WHERE orders.id = $1::UUID
FOR NO KEY UPDATE;

SELECT orders.id,
    orders.order_number,
    orders.user_id,
    orders.status,
    orders.currency,
    orders.total_amount,
    orders.external_ref,
    orders.metadata,
    orders.tracking_number,
    orders.cancel_reason,
    orders.credit_state,
    orders.credit_user_id,
    orders.credit_expire_time,
    orders.version,
    orders.create_time,
    orders.update_time,
    CAST(
        (
            SELECT json_agg(json_build_array(CAST(order_items.id AS TEXT), CAST(order_items.product_id AS TEXT), CAST(order_items.name AS TEXT), CAST(order_items.quantity AS TEXT), CAST(order_items.unit_price AS TEXT), CAST(order_items.subtotal AS TEXT)) ORDER BY order_items.id) AS json_agg_1
            FROM order_items
            WHERE order_items.order_id = orders.id
        ) AS TEXT
    ) AS items,
    CAST(
        (
            SELECT json_agg(json_build_array(tags.id, tags.name)) AS json_agg_2
            FROM order_tags
            JOIN tags ON tags.id = order_tags.tag_id
            WHERE order_tags.order_id = orders.id
        ) AS TEXT
    ) AS tags
FROM orders
WHERE orders.id = ANY(CAST(
    (
        SELECT $1::VARCHAR AS anon_1
    ) AS UUID[]
));

UPDATE orders
SET status=$1::VARCHAR,
    version=$2::BIGINT,
    update_time=$3::TIMESTAMP WITH TIME ZONE,
    message=$4::BYTEA
WHERE orders.id = $5::UUID;

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
