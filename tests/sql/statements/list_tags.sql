-- list_tags
-- $1: row_limit
SELECT tags.name,
    (
        SELECT count(*) AS count_1
        FROM order_tags
        WHERE order_tags.tag_id = tags.id
    ) AS order_count
FROM tags
ORDER BY tags.name
LIMIT $1::BIGINT;
