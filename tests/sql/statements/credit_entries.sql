-- credit_entries
-- $1: param_1
-- $2: param_2
-- $3: id_1
-- $4: coalesce_1
-- $5: max_bytes
SELECT measured.position,
    measured.id,
    measured.transaction_id,
    measured.user_id,
    measured.account,
    measured.type,
    measured.currency,
    measured.amount,
    measured.balance_after,
    measured.order_id,
    measured.description,
    measured.actor,
    measured.create_time,
    measured.on_behalf_of,
    measured.row_bytes
FROM (
    SELECT candidates.position AS position,
        candidates.id AS id,
        candidates.transaction_id AS transaction_id,
        candidates.user_id AS user_id,
        candidates.account AS account,
        candidates.type AS type,
        candidates.currency AS currency,
        candidates.amount AS amount,
        candidates.balance_after AS balance_after,
        candidates.order_id AS order_id,
        candidates.description AS description,
        candidates.actor AS actor,
        candidates.create_time AS create_time,
        candidates.on_behalf_of AS on_behalf_of,
        candidates.key_0 AS key_0,
        coalesce(octet_length(candidates.description), 0) + coalesce(octet_length(candidates.actor), 0) + 350 AS row_bytes,
        sum(coalesce(octet_length(candidates.description), 0) + coalesce(octet_length(candidates.actor), 0) + 350) OVER(ORDER BY candidates.key_0 DESC ROWS BETWEEN UNBOUNDED PRECEDING AND $1::INTEGER PRECEDING) AS bytes_before
    FROM (
        SELECT part.position AS position,
            part.id AS id,
            part.transaction_id AS transaction_id,
            part.user_id AS user_id,
            part.account AS account,
            part.type AS type,
            part.currency AS currency,
            part.amount AS amount,
            part.balance_after AS balance_after,
            part.order_id AS order_id,
            part.description AS description,
            part.actor AS actor,
            part.create_time AS create_time,
            part.on_behalf_of AS on_behalf_of,
            part.position AS key_0
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
                credit_entries.on_behalf_of AS on_behalf_of
            FROM credit_entries
            WHERE credit_entries.user_id = users.id
            ORDER BY credit_entries.position DESC
            LIMIT $2::INTEGER
        ) AS part ON true
        WHERE users.id = $3::UUID
    ) AS candidates
) AS measured
WHERE coalesce(measured.bytes_before, $4::INTEGER) <= $5::BIGINT
ORDER BY measured.key_0 DESC;
