-- GrantCredit, with a request id

-- In a transaction:

BEGIN;

SELECT set_config('statement_timeout', CAST(CAST($1 AS int) AS text), true),
    CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', CAST(CAST($2 AS int) AS text), true) END,
    set_config('commerce.keeps_messages', '1', true),
    set_config('commerce.writes_search', '1', true);

INSERT INTO request_ids(caller, method, request_id, body_digest)
VALUES ($1::VARCHAR, $2::VARCHAR, $3::UUID, $4::BYTEA)
ON CONFLICT DO NOTHING
RETURNING request_ids.request_id;

SELECT users.id,
    users.email,
    users.username,
    users.full_name,
    users.superuser,
    users.state,
    users.undelete_state,
    users.version,
    users.create_time,
    users.update_time,
    users.delete_time,
    users.purge_time,
    users.message
FROM users
WHERE users.id = $1::UUID
FOR SHARE;

SELECT credit_accounts.user_id,
    credit_accounts.currency,
    credit_accounts.available,
    credit_accounts.held
FROM credit_accounts
WHERE (credit_accounts.user_id, credit_accounts.currency) IN (($1, $2))
ORDER BY credit_accounts.user_id,
    credit_accounts.currency
FOR UPDATE;

UPDATE credit_accounts
SET available=$1::NUMERIC(19, 4)
WHERE credit_accounts.user_id = $2::UUID
    AND credit_accounts.currency = $3::VARCHAR;

INSERT INTO credit_entries(id, transaction_id, user_id, account, type, currency, amount, balance_after, order_id, description, actor, create_time, on_behalf_of)
VALUES ($1::UUID, $2::UUID, $3::UUID, $4::VARCHAR, $5::VARCHAR, $6::VARCHAR, $7::NUMERIC(19, 4), $8::NUMERIC(19, 4), $9::UUID, $10::VARCHAR, $11::VARCHAR, $12::TIMESTAMP WITH TIME ZONE, $13::UUID);

UPDATE request_ids
SET response=$1::BYTEA,
    resource_id=$2::UUID
WHERE request_ids.caller = $3::VARCHAR
    AND request_ids.method = $4::VARCHAR
    AND request_ids.request_id = $5::UUID;

COMMIT;
