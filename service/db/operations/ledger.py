"""Checks the ledger: recomputes all balances from its entries, and compares them with the stored balances."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.connections.engine import for_single_statements
from service.db.errors import translated_errors

# One statement, so one snapshot: a transaction that commits meanwhile does not look like a difference.
DIFFERENCES = text("""
WITH summed AS (
    SELECT user_id, currency,
           coalesce(sum(amount) FILTER (WHERE account = 'AVAILABLE'), 0) AS available,
           coalesce(sum(amount) FILTER (WHERE account = 'HELD'), 0) AS held
    FROM credit_entries WHERE user_id IS NOT NULL GROUP BY user_id, currency
), last_entry AS (
    SELECT DISTINCT ON (user_id, currency, account) user_id, currency, account, balance_after
    FROM credit_entries WHERE user_id IS NOT NULL ORDER BY user_id, currency, account, position DESC
), ordered AS (
    SELECT credit_user_id AS user_id, currency, sum(total_amount) AS held
    FROM orders WHERE credit_state = 'HELD' GROUP BY credit_user_id, currency
)
SELECT format('user %s, %s: %s available by the entries, %s stored', user_id, currency, s.available, a.available)
FROM summed s FULL JOIN credit_accounts a USING (user_id, currency)
WHERE coalesce(s.available, 0) IS DISTINCT FROM a.available
UNION ALL
SELECT format('user %s, %s: %s held by the entries, %s stored', user_id, currency, s.held, a.held)
FROM summed s FULL JOIN credit_accounts a USING (user_id, currency)
WHERE coalesce(s.held, 0) IS DISTINCT FROM a.held
UNION ALL
SELECT format('user %s, %s: %s held for orders, %s stored', user_id, currency, o.held, a.held)
FROM ordered o FULL JOIN credit_accounts a USING (user_id, currency)
WHERE coalesce(o.held, 0) IS DISTINCT FROM coalesce(a.held, 0)
UNION ALL
SELECT format('user %s, %s: the last %s entry says %s', user_id, currency, lower(l.account COLLATE "C"),
              l.balance_after)
FROM last_entry l JOIN credit_accounts a USING (user_id, currency)
WHERE l.balance_after <> CASE l.account WHEN 'AVAILABLE' THEN a.available ELSE a.held END
UNION ALL
SELECT format('transaction %s: its entries add up to %s %s', transaction_id, sum(amount), currency)
FROM credit_entries GROUP BY transaction_id, currency HAVING sum(amount) <> 0
""")


async def ledger_differences(engine: AsyncEngine) -> Sequence[str]:
    """Return a description of each difference; empty if the ledger is consistent. Raises StoreError."""
    with translated_errors():
        async with for_single_statements(engine).connect() as connection:
            return (await connection.scalars(DIFFERENCES)).all()
