-- list_tags.next_page_with_a_prefix
-- $1: param_1
-- $2: name_1
-- $3: name_2
-- $4: after_0
-- $5: row_limit
-- $6: coalesce_1
-- $7: max_bytes
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
            AND (tags.name) > ($4::VARCHAR COLLATE "C")
        ORDER BY tags.name
        LIMIT $5::BIGINT
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $6::INTEGER) <= $7::BIGINT
ORDER BY measured.key_0;
