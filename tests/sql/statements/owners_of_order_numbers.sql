-- owners_of_order_numbers
-- $1: keys
SELECT orders.user_id
FROM orders
WHERE orders.order_number = ANY($1::TEXT[]);
