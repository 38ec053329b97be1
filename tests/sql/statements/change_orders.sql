-- change_orders
-- $1: set_config_1
-- $2: set_config_2
-- $3: set_config_3
-- $4: set_config_4
-- $5: decode_1
-- $6: decode_2
-- $7: decode_3
-- $8: given
WITH limited AS MATERIALIZED (
    SELECT set_config($1::VARCHAR, $2::VARCHAR, true) AS "limit",
        set_config($3::VARCHAR, $4::VARCHAR, true) AS message_version
),
given AS (
    SELECT anon_1.id AS id,
        anon_1.status AS status,
        anon_1.tracking_number AS tracking_number,
        anon_1.cancel_reason AS cancel_reason,
        anon_1.version AS version,
        anon_1.update_time AS update_time,
        decode(anon_1.message, $5::VARCHAR) AS message,
        anon_1.old_version AS old_version,
        anon_1.event_id AS event_id,
        anon_1.event_aggregate_type AS event_aggregate_type,
        anon_1.event_aggregate_id AS event_aggregate_id,
        anon_1.event_type AS event_type,
        anon_1.event_actor AS event_actor,
        anon_1.event_create_time AS event_create_time,
        anon_1.event_changes AS event_changes,
        anon_1.event_user_id AS event_user_id,
        anon_1.event_status AS event_status,
        anon_1.event_on_behalf_of AS event_on_behalf_of,
        anon_1.request_caller AS request_caller,
        anon_1.request_method AS request_method,
        anon_1.request_request_id AS request_request_id,
        decode(anon_1.request_body_digest, $6::VARCHAR) AS request_body_digest,
        decode(anon_1.request_response, $7::VARCHAR) AS request_response,
        anon_1.request_resource_id AS request_resource_id
    FROM json_to_recordset(CAST($8::VARCHAR AS JSON)) AS anon_1(id UUID, status TEXT, tracking_number TEXT, cancel_reason TEXT, version BIGINT, update_time TIMESTAMP WITH TIME ZONE, message TEXT, old_version BIGINT, event_id UUID, event_aggregate_type TEXT, event_aggregate_id UUID, event_type TEXT, event_actor TEXT, event_create_time TIMESTAMP WITH TIME ZONE, event_changes JSONB, event_user_id UUID, event_status TEXT, event_on_behalf_of UUID, request_caller TEXT, request_method TEXT, request_request_id UUID, request_body_digest TEXT, request_response TEXT, request_resource_id UUID)
),
allowed AS (
    SELECT given.id AS id,
        given.status AS status,
        given.tracking_number AS tracking_number,
        given.cancel_reason AS cancel_reason,
        given.version AS version,
        given.update_time AS update_time,
        given.message AS message,
        given.old_version AS old_version,
        given.event_id AS event_id,
        given.event_aggregate_type AS event_aggregate_type,
        given.event_aggregate_id AS event_aggregate_id,
        given.event_type AS event_type,
        given.event_actor AS event_actor,
        given.event_create_time AS event_create_time,
        given.event_changes AS event_changes,
        given.event_user_id AS event_user_id,
        given.event_status AS event_status,
        given.event_on_behalf_of AS event_on_behalf_of,
        given.request_caller AS request_caller,
        given.request_method AS request_method,
        given.request_request_id AS request_request_id,
        given.request_body_digest AS request_body_digest,
        given.request_response AS request_response,
        given.request_resource_id AS request_resource_id
    FROM limited
    JOIN given ON true
    JOIN orders ON orders.id = given.id
    WHERE orders.version = given.old_version
        AND orders.message IS NOT NULL
    FOR NO KEY UPDATE OF orders SKIP LOCKED
),
claimed AS (
    INSERT INTO request_ids(caller, method, request_id, body_digest, response, resource_id)
    SELECT allowed.request_caller AS request_caller,
        allowed.request_method AS request_method,
        allowed.request_request_id AS request_request_id,
        allowed.request_body_digest AS request_body_digest,
        allowed.request_response AS request_response,
        allowed.request_resource_id AS request_resource_id
    FROM allowed
    WHERE allowed.request_request_id IS NOT NULL
    ORDER BY allowed.request_request_id
    ON CONFLICT DO NOTHING
    RETURNING request_ids.method,
        request_ids.request_id
),
changed AS (
    UPDATE orders
    SET status=allowed.status,
        tracking_number=allowed.tracking_number,
        cancel_reason=allowed.cancel_reason,
        version=allowed.version,
        update_time=allowed.update_time,
        message=allowed.message
    FROM allowed
    WHERE orders.id = allowed.id
        AND (allowed.request_request_id IS NULL OR (EXISTS (
            SELECT claimed.request_id
            FROM claimed
            WHERE claimed.method = allowed.request_method
                AND claimed.request_id = allowed.request_request_id
        )))
    RETURNING orders.id
),
event AS (
    INSERT INTO events(id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status, on_behalf_of)
    SELECT allowed.event_id AS event_id,
        allowed.event_aggregate_type AS event_aggregate_type,
        allowed.event_aggregate_id AS event_aggregate_id,
        allowed.event_type AS event_type,
        allowed.event_actor AS event_actor,
        allowed.event_create_time AS event_create_time,
        allowed.event_changes AS event_changes,
        allowed.event_user_id AS event_user_id,
        allowed.event_status AS event_status,
        allowed.event_on_behalf_of AS event_on_behalf_of
    FROM allowed
    WHERE allowed.id IN (
        SELECT changed.id
        FROM changed
    )
)
SELECT changed.id
FROM changed;
