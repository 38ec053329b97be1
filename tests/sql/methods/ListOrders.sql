-- ListOrders

-- Without a transaction:

-- list_orders.of_a_user
SELECT measured.id,
    measured.create_time,
    measured.message,
    measured.order_number,
    measured.user_id,
    measured.status,
    measured.currency,
    measured.external_ref,
    measured.tracking_number,
    measured.cancel_reason,
    measured.credit_state,
    measured.version,
    measured.update_time,
    measured.credit_expire_time,
    measured.total_amount,
    measured.metadata,
    measured.items,
    measured.tag_names,
    measured.row_bytes
FROM (
    SELECT candidates.id AS id,
        candidates.create_time AS create_time,
        candidates.message AS message,
        candidates.order_number AS order_number,
        candidates.user_id AS user_id,
        candidates.status AS status,
        candidates.currency AS currency,
        candidates.external_ref AS external_ref,
        candidates.tracking_number AS tracking_number,
        candidates.cancel_reason AS cancel_reason,
        candidates.credit_state AS credit_state,
        candidates.version AS version,
        candidates.update_time AS update_time,
        candidates.credit_expire_time AS credit_expire_time,
        candidates.total_amount AS total_amount,
        candidates.metadata AS metadata,
        candidates.items AS items,
        candidates.tag_names AS tag_names,
        candidates.key_0 AS key_0,
        candidates.key_1 AS key_1,
        coalesce(octet_length(candidates.message), 320 + coalesce(octet_length(candidates.external_ref), 0) + coalesce(octet_length(candidates.tracking_number), 0) + coalesce(octet_length(candidates.cancel_reason), 0) + coalesce(octet_length(candidates.metadata), 0) + coalesce(octet_length(candidates.items), 0) + coalesce(octet_length(candidates.items), 0) + coalesce(octet_length(array_to_string(candidates.tag_names, $1::VARCHAR)), 0)) + 3 AS row_bytes,
        sum(coalesce(octet_length(candidates.message), 320 + coalesce(octet_length(candidates.external_ref), 0) + coalesce(octet_length(candidates.tracking_number), 0) + coalesce(octet_length(candidates.cancel_reason), 0) + coalesce(octet_length(candidates.metadata), 0) + coalesce(octet_length(candidates.items), 0) + coalesce(octet_length(candidates.items), 0) + coalesce(octet_length(array_to_string(candidates.tag_names, $1::VARCHAR)), 0)) + 3) OVER(ORDER BY candidates.key_0 DESC, candidates.key_1 DESC ROWS BETWEEN UNBOUNDED PRECEDING AND $2::INTEGER PRECEDING) AS bytes_before
    FROM (
        SELECT orders.id AS id,
            CAST(EXTRACT(epoch FROM orders.create_time) * 1000000 AS BIGINT) AS create_time,
            orders.message AS message,
            CASE WHEN (orders.message IS NULL) THEN orders.order_number END AS order_number,
            CASE WHEN (orders.message IS NULL) THEN orders.user_id END AS user_id,
            CASE WHEN (orders.message IS NULL) THEN orders.status END AS status,
            CASE WHEN (orders.message IS NULL) THEN orders.currency END AS currency,
            CASE WHEN (orders.message IS NULL) THEN orders.external_ref END AS external_ref,
            CASE WHEN (orders.message IS NULL) THEN orders.tracking_number END AS tracking_number,
            CASE WHEN (orders.message IS NULL) THEN orders.cancel_reason END AS cancel_reason,
            CASE WHEN (orders.message IS NULL) THEN orders.credit_state END AS credit_state,
            CASE WHEN (orders.message IS NULL) THEN orders.version END AS version,
            CASE WHEN (orders.message IS NULL) THEN CAST(EXTRACT(epoch FROM orders.update_time) * 1000000 AS BIGINT) END AS update_time,
            CASE WHEN (orders.message IS NULL) THEN CAST(EXTRACT(epoch FROM orders.credit_expire_time) * 1000000 AS BIGINT) END AS credit_expire_time,
            CASE WHEN (orders.message IS NULL) THEN CAST(trunc(orders.total_amount * 10000) AS TEXT) END AS total_amount,
            CASE WHEN (orders.message IS NULL) THEN CAST(orders.metadata AS TEXT) END AS metadata,
            CASE WHEN (orders.message IS NULL) THEN CAST(
                (
                    SELECT json_agg(json_build_array(order_items.id, order_items.product_id, order_items.name, order_items.quantity, trunc(order_items.unit_price * 10000), trunc(order_items.subtotal * 10000)) ORDER BY order_items.id) AS json_agg_1
                    FROM order_items
                    WHERE order_items.order_id = orders.id
                ) AS TEXT
            ) END AS items,
            CASE WHEN (orders.message IS NULL) THEN (
                SELECT array_agg(tags.name ORDER BY tags.name) AS array_agg_1
                FROM order_tags
                JOIN tags ON tags.id = order_tags.tag_id
                WHERE order_tags.order_id = orders.id
            ) END AS tag_names,
            orders.create_time AS key_0,
            orders.id AS key_1
        FROM orders
        WHERE orders.user_id = $3::UUID
        ORDER BY orders.create_time DESC,
            orders.id DESC
        LIMIT $4::BIGINT
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $5::INTEGER) <= $6::BIGINT
ORDER BY measured.key_0 DESC,
    measured.key_1 DESC;
