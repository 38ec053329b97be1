-- ListTags

-- Without a transaction:

SELECT tags.name,
    (
        SELECT count(*) AS count_1
        FROM order_tags
        WHERE order_tags.tag_id = tags.id
    ) AS order_count
FROM tags
WHERE tags.name >= $1::VARCHAR COLLATE "C"
    AND tags.name <= $2::VARCHAR COLLATE "C"
ORDER BY tags.name
LIMIT $3::BIGINT;
