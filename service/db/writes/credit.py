"""The write side of credit."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import credit_accounts
from service.domain.credit import CreditAccount, Transaction


class Credit:
    """Implements `service.application.ports.unit_of_work.CreditRepository` in the transaction that `begin` gives."""

    def __init__(self, begin: Callable[[], Awaitable[AsyncSession]]) -> None:
        self._begin = begin
        self._recorded: list[Transaction] = []

    async def lock(self, accounts: Sequence[tuple[UUID, str]]) -> list[CreditAccount]:
        """Return the credit of users in currencies as asked for, locked in one order and made where missing."""
        session = await self._begin()
        found = await self._locked(session, accounts)
        if missing := sorted(key for key in set(accounts) if key not in found):
            zeros = [{"user_id": user, "currency": currency, "available": 0, "held": 0} for user, currency in missing]
            # Another call may make the same ones: then this waits for it.
            await session.execute(insert(credit_accounts).values(zeros).on_conflict_do_nothing())
            found = await self._locked(session, accounts)
        return [found[key] for key in accounts]

    def record(self, transaction: Transaction) -> None:
        """Add the entries to the ledger with the flush."""
        self._recorded.append(transaction)

    def take_recorded(self, actor: str) -> list[dict[str, object]]:
        """Return the rows of the entries recorded since the last call."""
        rows: list[dict[str, object]] = [
            {
                "id": entry.id,
                "transaction_id": transaction.id,
                "user_id": entry.user_id,
                "account": entry.account,
                "type": transaction.type,
                "currency": entry.currency,
                "amount": entry.amount,
                "balance_after": entry.balance_after,
                "order_id": transaction.order_id,
                "description": transaction.description,
                "actor": actor,
                "create_time": transaction.create_time,
            }
            for transaction in self._recorded
            for entry in transaction.entries
        ]
        self._recorded.clear()
        return rows

    async def _locked(
        self, session: AsyncSession, accounts: Sequence[tuple[UUID, str]]
    ) -> dict[tuple[UUID, str], CreditAccount]:
        key = tuple_(credit_accounts.c.user_id, credit_accounts.c.currency)
        statement = select(CreditAccount).where(key.in_(accounts)).order_by(*key).with_for_update()
        found = await session.scalars(statement)
        return {(account.user_id, account.currency): account for account in found}
