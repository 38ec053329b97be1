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
-- $10: given_status
-- $11: given_tracking_number
-- $12: given_cancel_reason
-- $13: given_version
-- $14: given_update_time
-- $15: given_message
-- $16: set_config_1
-- $17: set_config_2
-- $18: set_config_3
-- $19: set_config_4
-- $20: given_id
-- $21: given_old_version
-- $22: given_request_caller
-- $23: given_request_method
-- $24: given_request_request_id
-- $25: given_request_body_digest
-- $26: given_request_response
-- $27: given_request_resource_id
WITH limited AS MATERIALIZED (
    SELECT set_config($16::VARCHAR, $17::VARCHAR, true) AS "limit",
        set_config($18::VARCHAR, $19::VARCHAR, true) AS message_version
),
allowed AS (
    SELECT orders.id AS id
    FROM limited
    JOIN orders ON true
    WHERE orders.id = $20::UUID
        AND orders.version = $21::BIGINT
        AND orders.message IS NOT NULL
    FOR NO KEY UPDATE OF orders SKIP LOCKED
),
claimed AS (
    INSERT INTO request_ids(caller, method, request_id, body_digest, response, resource_id)
    SELECT $22::VARCHAR AS anon_10,
        $23::VARCHAR AS anon_11,
        $24::UUID AS anon_12,
        $25::BYTEA AS anon_13,
        $26::BYTEA AS anon_14,
        $27::UUID AS anon_15
    FROM allowed
    ON CONFLICT DO NOTHING
    RETURNING request_ids.request_id
),
changed AS (
    UPDATE orders
    SET status=$10::VARCHAR,
        tracking_number=$11::VARCHAR,
        cancel_reason=$12::VARCHAR,
        version=$13::BIGINT,
        update_time=$14::TIMESTAMP WITH TIME ZONE,
        message=$15::BYTEA
    FROM allowed
    WHERE orders.id = allowed.id
        AND (EXISTS (
            SELECT claimed.request_id
            FROM claimed
        ))
    RETURNING orders.id
),
event AS (
    INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
    SELECT $1::UUID AS anon_1,
        $2::VARCHAR AS anon_2,
        $3::UUID AS anon_3,
        $4::VARCHAR AS anon_4,
        $5::VARCHAR AS anon_5,
        $6::TIMESTAMP WITH TIME ZONE AS anon_6,
        $7::JSONB AS anon_7,
        $8::UUID AS anon_8,
        $9::VARCHAR AS anon_9
    FROM changed
)
SELECT changed.id
FROM changed;
