-- owners_of_orders
-- $1: keys
SELECT orders.user_id
FROM orders
WHERE orders.id = ANY(CAST(
    (
        SELECT $1::VARCHAR AS anon_1
    ) AS UUID[]
));
