-- change_order_with_request_id
-- $1: given_event_id
-- $2: given_event_aggregate_type
-- $3: given_event_aggregate_id
-- $4: given_event_type
-- $5: given_event_actor
-- $6: given_event_create_time
-- $7: given_event_changes
-- $8: given_event_user_id
-- $9: given_event_status
-- $10: given_event_on_behalf_of
-- $11: given_status
-- $12: given_tracking_number
-- $13: given_cancel_reason
-- $14: given_version
-- $15: given_update_time
-- $16: given_message
-- $17: set_config_1
-- $18: set_config_2
-- $19: set_config_3
-- $20: set_config_4
-- $21: given_id
-- $22: given_old_version
-- $23: given_request_caller
-- $24: given_request_method
-- $25: given_request_request_id
-- $26: given_request_body_digest
-- $27: given_request_response
-- $28: given_request_resource_id
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
