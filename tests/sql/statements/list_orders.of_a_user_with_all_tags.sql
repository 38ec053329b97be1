-- list_orders.of_a_user_with_all_tags
-- $1: user_id
-- $2: tag_0
-- $3: row_limit
SELECT orders.id,
    CAST(EXTRACT(epoch FROM orders.create_time) * 1000000 AS BIGINT) AS create_time,
    orders.message,
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
    ) END AS tag_names
FROM orders
WHERE orders.user_id = $1::UUID
    AND (EXISTS (
        SELECT *
        FROM order_tags
        WHERE order_tags.order_id = orders.id
            AND order_tags.tag_id = (
                SELECT tags.id
                FROM tags
                WHERE tags.name = $2::VARCHAR COLLATE "C"
            )
    ))
ORDER BY orders.create_time DESC,
    orders.id DESC
LIMIT $3::BIGINT;
