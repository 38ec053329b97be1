-- list_notes.of_an_order
-- $1: order_id_1
-- $2: state_1
-- $3: row_limit
SELECT order_notes.id,
    order_notes.order_id,
    order_notes.author_id,
    order_notes.body,
    order_notes.state,
    order_notes.version,
    order_notes.create_time,
    order_notes.update_time,
    order_notes.publish_time
FROM order_notes
WHERE order_notes.order_id = $1::UUID
    AND order_notes.state = $2::VARCHAR
ORDER BY order_notes.create_time DESC,
    order_notes.id DESC
LIMIT $3::BIGINT;
