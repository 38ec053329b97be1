-- ListTags

-- Without a transaction:

SELECT measured.name,
    measured.order_count,
    measured.row_bytes
FROM (
    SELECT candidates.name AS name,
        candidates.order_count AS order_count,
        candidates.key_0 AS key_0,
        octet_length(candidates.name) + 20 AS row_bytes,
        sum(octet_length(candidates.name) + 20) OVER(ORDER BY candidates.key_0 ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
    FROM (
        SELECT tags.name AS name,
            (
                SELECT count(*) AS count_1
                FROM order_tags
                WHERE order_tags.tag_id = tags.id
            ) AS order_count,
            tags.name AS key_0
        FROM tags
        WHERE tags.name >= $2::VARCHAR COLLATE "C"
            AND tags.name <= $3::VARCHAR COLLATE "C"
        ORDER BY tags.name
        LIMIT $4::BIGINT
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $5::INTEGER) <= $6::BIGINT
ORDER BY measured.key_0;
