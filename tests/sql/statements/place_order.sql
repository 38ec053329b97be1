-- place_order
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
-- $14: set_config_1
-- $15: set_config_2
-- $16: set_config_3
-- $17: set_config_4
-- $18: state_1
-- $19: given_event_id
-- $20: given_event_aggregate_type
-- $21: given_event_aggregate_id
-- $22: given_event_type
-- $23: given_event_actor
-- $24: given_event_create_time
-- $25: given_event_changes
-- $26: given_event_user_id
-- $27: given_event_status
-- $28: given_event_on_behalf_of
WITH limited AS MATERIALIZED (
    SELECT set_config($14::VARCHAR, $15::VARCHAR, true) AS "limit",
        set_config($16::VARCHAR, $17::VARCHAR, true) AS message_version
),
customer AS (
    SELECT users.id AS id
    FROM limited
    JOIN users ON true
    WHERE users.id = $4::UUID
        AND users.state = $18::VARCHAR
    FOR SHARE OF users SKIP LOCKED
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
    FROM customer
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
    SELECT $19::UUID AS anon_14,
        $20::VARCHAR AS anon_15,
        $21::UUID AS anon_16,
        $22::VARCHAR AS anon_17,
        $23::VARCHAR AS anon_18,
        $24::TIMESTAMP WITH TIME ZONE AS anon_19,
        $25::JSONB AS anon_20,
        $26::UUID AS anon_21,
        $27::VARCHAR AS anon_22,
        $28::UUID AS anon_23
    FROM placed
)
SELECT placed.id
FROM placed;
