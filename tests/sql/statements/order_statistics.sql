-- order_statistics
-- $1: timezone_1
-- $2: created_from
-- $3: more_than
-- $4: top_limit
-- $5: row_limit
WITH selected AS NOT MATERIALIZED (
    SELECT CAST(timezone($1::VARCHAR, orders.create_time) AS DATE) AS day,
        orders.status AS status,
        orders.currency AS currency,
        orders.user_id AS user_id,
        orders.total_amount AS total_amount
    FROM orders
    WHERE orders.create_time >= $2::TIMESTAMP WITH TIME ZONE
),
top AS (
    SELECT selected.user_id AS user_id,
        count(*) AS order_count
    FROM selected
    GROUP BY selected.user_id
    HAVING count(*) > $3::BIGINT
    ORDER BY order_count DESC,
        selected.user_id
    LIMIT $4::BIGINT
)
SELECT statistics.day,
    statistics.status,
    statistics.currency,
    statistics.user_id,
    statistics.order_count,
    statistics.total_amount
FROM (
    SELECT selected.day AS day,
        selected.status AS status,
        selected.currency AS currency,
        NULL AS user_id,
        count(*) AS order_count,
        sum(selected.total_amount) AS total_amount
    FROM selected
    GROUP BY selected.day,
        selected.status,
        selected.currency
    UNION ALL
    SELECT NULL AS day,
        NULL AS status,
        selected.currency AS currency,
        top.user_id AS user_id,
        top.order_count AS order_count,
        sum(selected.total_amount) AS total_amount
    FROM top
    JOIN selected ON top.user_id = selected.user_id
    GROUP BY top.user_id,
        top.order_count,
        selected.currency
) AS statistics
ORDER BY statistics.day,
    statistics.status,
    statistics.order_count DESC,
    statistics.user_id,
    statistics.currency
LIMIT $5::BIGINT;
