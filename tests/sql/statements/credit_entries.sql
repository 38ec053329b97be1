-- credit_entries
-- $1: param_1
-- $2: id_1
SELECT part.position,
    part.id,
    part.transaction_id,
    part.user_id,
    part.account,
    part.type,
    part.currency,
    part.amount,
    part.balance_after,
    part.order_id,
    part.description,
    part.actor,
    part.create_time,
    part.row_bytes
FROM users
LEFT OUTER JOIN LATERAL (
    SELECT credit_entries.position AS position,
        credit_entries.id AS id,
        credit_entries.transaction_id AS transaction_id,
        credit_entries.user_id AS user_id,
        credit_entries.account AS account,
        credit_entries.type AS type,
        credit_entries.currency AS currency,
        credit_entries.amount AS amount,
        credit_entries.balance_after AS balance_after,
        credit_entries.order_id AS order_id,
        credit_entries.description AS description,
        credit_entries.actor AS actor,
        credit_entries.create_time AS create_time,
        coalesce(octet_length(credit_entries.description), 0) + 350 AS row_bytes
    FROM credit_entries
    WHERE credit_entries.user_id = users.id
    ORDER BY credit_entries.position DESC
    LIMIT $1::INTEGER
) AS part ON true
WHERE users.id = $2::UUID
ORDER BY part.position DESC;
