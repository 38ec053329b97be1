-- place_order_with_request_id
-- $1: items
-- $2: given_id
-- $3: given_order_number
-- $4: given_user_id
-- $5: given_status
-- $6: given_currency
-- $7: given_total_amount
-- $8: given_external_ref
-- $9: given_metadata
-- $10: given_version
-- $11: given_create_time
-- $12: given_update_time
-- $13: given_message
-- $14: given_request_caller
-- $15: given_request_method
-- $16: given_request_request_id
-- $17: given_request_body_digest
-- $18: given_request_response
-- $19: given_request_resource_id
-- $20: set_config_1
-- $21: set_config_2
-- $22: set_config_3
-- $23: set_config_4
-- $24: state_1
-- $25: given_event_id
-- $26: given_event_aggregate_type
-- $27: given_event_aggregate_id
-- $28: given_event_type
-- $29: given_event_actor
-- $30: given_event_create_time
-- $31: given_event_changes
-- $32: given_event_user_id
-- $33: given_event_status
-- $34: given_event_on_behalf_of
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
