-- place_orders
-- $1: items
-- $2: decode_1
-- $3: decode_2
-- $4: decode_3
-- $5: given
-- $6: set_config_1
-- $7: set_config_2
-- $8: set_config_3
-- $9: set_config_4
-- $10: state_1
WITH given AS (
    SELECT anon_2.id AS id,
        anon_2.order_number AS order_number,
        anon_2.user_id AS user_id,
        anon_2.status AS status,
        anon_2.currency AS currency,
        anon_2.total_amount AS total_amount,
        anon_2.external_ref AS external_ref,
        anon_2.metadata AS metadata,
        anon_2.version AS version,
        anon_2.create_time AS create_time,
        anon_2.update_time AS update_time,
        decode(anon_2.message, $2::VARCHAR) AS message,
        anon_2.event_id AS event_id,
        anon_2.event_aggregate_type AS event_aggregate_type,
        anon_2.event_aggregate_id AS event_aggregate_id,
        anon_2.event_type AS event_type,
        anon_2.event_actor AS event_actor,
        anon_2.event_create_time AS event_create_time,
        anon_2.event_changes AS event_changes,
        anon_2.event_user_id AS event_user_id,
        anon_2.event_status AS event_status,
        anon_2.event_on_behalf_of AS event_on_behalf_of,
        anon_2.request_caller AS request_caller,
        anon_2.request_method AS request_method,
        anon_2.request_request_id AS request_request_id,
        decode(anon_2.request_body_digest, $3::VARCHAR) AS request_body_digest,
        decode(anon_2.request_response, $4::VARCHAR) AS request_response,
        anon_2.request_resource_id AS request_resource_id
    FROM json_to_recordset(CAST($5::VARCHAR AS JSON)) AS anon_2(id UUID, order_number TEXT, user_id UUID, status TEXT, currency TEXT, total_amount NUMERIC(19, 4), external_ref TEXT, metadata JSONB, version BIGINT, create_time TIMESTAMP WITH TIME ZONE, update_time TIMESTAMP WITH TIME ZONE, message TEXT, event_id UUID, event_aggregate_type TEXT, event_aggregate_id UUID, event_type TEXT, event_actor TEXT, event_create_time TIMESTAMP WITH TIME ZONE, event_changes JSONB, event_user_id UUID, event_status TEXT, event_on_behalf_of UUID, request_caller TEXT, request_method TEXT, request_request_id UUID, request_body_digest TEXT, request_response TEXT, request_resource_id UUID)
),
limited AS MATERIALIZED (
    SELECT set_config($6::VARCHAR, $7::VARCHAR, true) AS "limit",
        set_config($8::VARCHAR, $9::VARCHAR, true) AS message_version
),
customers AS (
    SELECT users.id AS id
    FROM limited
    JOIN users ON true
    WHERE users.id IN (
        SELECT given.user_id
        FROM given
    )
        AND users.state = $10::VARCHAR
    FOR SHARE OF users SKIP LOCKED
),
allowed AS (
    SELECT given.id AS id,
        given.order_number AS order_number,
        given.user_id AS user_id,
        given.status AS status,
        given.currency AS currency,
        given.total_amount AS total_amount,
        given.external_ref AS external_ref,
        given.metadata AS metadata,
        given.version AS version,
        given.create_time AS create_time,
        given.update_time AS update_time,
        given.message AS message,
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
    FROM given
    WHERE given.user_id IN (
        SELECT customers.id
        FROM customers
    )
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
placed AS (
    INSERT INTO orders(id, order_number, user_id, status, currency, total_amount, external_ref, metadata, version, create_time, update_time, message)
    SELECT allowed.id AS id,
        allowed.order_number AS order_number,
        allowed.user_id AS user_id,
        allowed.status AS status,
        allowed.currency AS currency,
        allowed.total_amount AS total_amount,
        allowed.external_ref AS external_ref,
        allowed.metadata AS metadata,
        allowed.version AS version,
        allowed.create_time AS create_time,
        allowed.update_time AS update_time,
        allowed.message AS message
    FROM allowed
    WHERE allowed.request_request_id IS NULL
        OR (EXISTS (
            SELECT claimed.request_id
            FROM claimed
            WHERE claimed.method = allowed.request_method
                AND claimed.request_id = allowed.request_request_id
        ))
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
    WHERE item.order_id IN (
        SELECT placed.id
        FROM placed
    )
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
        SELECT placed.id
        FROM placed
    )
)
SELECT placed.id
FROM placed;
