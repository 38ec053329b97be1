"""The repository of credit accounts and ledger entries."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.application.ports.unit_of_work import Actor
from service.db.tables import credit_accounts
from service.db.writes.transaction import LazyTransaction
from service.domain.credit import CreditAccount, Transaction


class Credit:
    """Implements `service.application.ports.unit_of_work.CreditRepository` in a transaction."""

    def __init__(self, transaction: LazyTransaction) -> None:
        self._transaction = transaction
        self._recorded: list[Transaction] = []

    async def lock(self, accounts: Sequence[tuple[UUID, str]]) -> list[CreditAccount]:
        """Return these accounts, each a user and a currency, locked in one order; creates those that do not exist."""
        session = await self._transaction.session()
        # Several are created before any is locked: a transaction that has locked one must not wait for another that
        # creates one. With a single account there is nothing to wait with.
        found = await self._locked(session, accounts) if len(accounts) == 1 else {}
        if missing := sorted(key for key in set(accounts) if key not in found):
            zeros = [{"user_id": user, "currency": currency, "available": 0, "held": 0} for user, currency in missing]
            # If another transaction inserts the same accounts, this waits for it.
            await session.execute(insert(credit_accounts).values(zeros).on_conflict_do_nothing())
            found = await self._locked(session, accounts)
        return [found[key] for key in accounts]

    def record(self, transaction: Transaction) -> None:
        """Add the entries to the ledger when the unit of work is flushed."""
        self._recorded.append(transaction)

    def take_rows(self, actor: Actor) -> list[dict[str, object]]:
        """Return the rows of the entries recorded since the last call, and forget the entries."""
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
                "actor": actor.name,
                "create_time": transaction.create_time,
                "on_behalf_of": actor.on_behalf_of,
            }
            for transaction in self._recorded
            for entry in transaction.entries
        ]
        self.discard_recorded()
        return rows

    def discard_recorded(self) -> None:
        """Forget the entries recorded since the last flush."""
        self._recorded.clear()

    async def _locked(
        self, session: AsyncSession, accounts: Sequence[tuple[UUID, str]]
    ) -> dict[tuple[UUID, str], CreditAccount]:
        key = tuple_(credit_accounts.c.user_id, credit_accounts.c.currency)
        statement = select(CreditAccount).where(key.in_(accounts)).order_by(*key).with_for_update()
        found = await session.scalars(statement)
        return {(account.user_id, account.currency): account for account in found}
