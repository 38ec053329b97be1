-- AddOrderTags, with a request id

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

SELECT tags.id,
    tags.name
FROM tags
WHERE tags.name IN ($1::VARCHAR COLLATE "C")
FOR KEY SHARE;

INSERT INTO tags(id, name)
VALUES ($1::UUID, $2::VARCHAR COLLATE "C")
ON CONFLICT DO NOTHING;

SELECT tags.id,
    tags.name
FROM tags
WHERE tags.name IN ($1::VARCHAR COLLATE "C")
FOR KEY SHARE;

UPDATE orders
SET version=$1::BIGINT,
    update_time=$2::TIMESTAMP WITH TIME ZONE,
    message=$3::BYTEA
WHERE orders.id = $4::UUID;

INSERT INTO order_tags(order_id, tag_id)
VALUES ($1::UUID, $2::UUID);

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
