-- list_tags.next_page_with_a_prefix
-- $1: name_1
-- $2: name_2
-- $3: after_0
-- $4: row_limit
SELECT tags.name,
    (
        SELECT count(*) AS count_1
        FROM order_tags
        WHERE order_tags.tag_id = tags.id
    ) AS order_count
FROM tags
WHERE tags.name >= $1::VARCHAR COLLATE "C"
    AND tags.name <= $2::VARCHAR COLLATE "C"
    AND (tags.name) > ($3::VARCHAR COLLATE "C")
ORDER BY tags.name
LIMIT $4::BIGINT;
