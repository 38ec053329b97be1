-- GetCreditBalance

-- Without a transaction:

-- credit_balances
SELECT users.id,
    credit_accounts.currency,
    credit_accounts.available,
    credit_accounts.held
FROM users
LEFT OUTER JOIN credit_accounts ON users.id = credit_accounts.user_id
WHERE users.id = $1::UUID
ORDER BY credit_accounts.currency;
