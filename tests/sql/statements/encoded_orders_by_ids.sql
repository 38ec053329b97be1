-- encoded_orders_by_ids
-- $1: ids
SELECT orders.id,
    orders.user_id,
    orders.status,
    orders.currency,
    orders.total_amount,
    orders.tracking_number,
    orders.cancel_reason,
    orders.credit_state,
    orders.credit_user_id,
    orders.credit_expire_time,
    orders.version,
    orders.update_time,
    orders.message
FROM orders
WHERE orders.id = ANY(CAST(
    (
        SELECT $1::VARCHAR AS anon_1
    ) AS UUID[]
));
