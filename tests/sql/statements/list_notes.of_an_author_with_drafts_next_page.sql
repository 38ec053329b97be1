-- list_notes.of_an_author_with_drafts_next_page
-- $1: author_id_1
-- $2: after_0
-- $3: after_1
-- $4: row_limit
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
WHERE order_notes.author_id = $1::UUID
    AND (order_notes.create_time, order_notes.id) < ($2::TIMESTAMP WITH TIME ZONE, $3::UUID)
ORDER BY order_notes.create_time DESC,
    order_notes.id DESC
LIMIT $4::BIGINT;
