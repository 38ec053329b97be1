-- orders_with_expired_holds
-- $1: credit_state_1
-- $2: credit_expire_time_1
SELECT orders.id
FROM orders
WHERE orders.credit_state = $1::VARCHAR
    AND orders.credit_expire_time <= $2::TIMESTAMP WITH TIME ZONE;
