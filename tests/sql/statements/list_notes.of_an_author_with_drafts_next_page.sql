-- list_notes.of_an_author_with_drafts_next_page
-- $1: param_1
-- $2: author_id_1
-- $3: after_0
-- $4: after_1
-- $5: row_limit
-- $6: coalesce_1
-- $7: max_bytes
SELECT measured.id,
    measured.order_id,
    measured.author_id,
    measured.body,
    measured.state,
    measured.version,
    measured.create_time,
    measured.update_time,
    measured.publish_time,
    measured.row_bytes
FROM (
    SELECT candidates.id AS id,
        candidates.order_id AS order_id,
        candidates.author_id AS author_id,
        candidates.body AS body,
        candidates.state AS state,
        candidates.version AS version,
        candidates.create_time AS create_time,
        candidates.update_time AS update_time,
        candidates.publish_time AS publish_time,
        candidates.key_0 AS key_0,
        candidates.key_1 AS key_1,
        coalesce(octet_length(candidates.body), 0) + 300 AS row_bytes,
        sum(coalesce(octet_length(candidates.body), 0) + 300) OVER(ORDER BY candidates.key_0 DESC, candidates.key_1 DESC ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
    FROM (
        SELECT order_notes.id AS id,
            order_notes.order_id AS order_id,
            order_notes.author_id AS author_id,
            order_notes.body AS body,
            order_notes.state AS state,
            order_notes.version AS version,
            order_notes.create_time AS create_time,
            order_notes.update_time AS update_time,
            order_notes.publish_time AS publish_time,
            order_notes.create_time AS key_0,
            order_notes.id AS key_1
        FROM order_notes
        WHERE order_notes.author_id = $2::UUID
            AND (order_notes.create_time, order_notes.id) < ($3::TIMESTAMP WITH TIME ZONE, $4::UUID)
        ORDER BY order_notes.create_time DESC,
            order_notes.id DESC
        LIMIT $5::BIGINT
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $6::INTEGER) <= $7::BIGINT
ORDER BY measured.key_0 DESC,
    measured.key_1 DESC;
