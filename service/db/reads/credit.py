"""The read side of credit; `service.application.ports.queries.CreditQueries` documents each method."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Integer, Row, bindparam, literal_column, select

from service.application.ports.queries import Page, PageOfRows
from service.db.reads.columns import text_size
from service.db.reads.reader import Reader
from service.db.tables import credit_accounts, credit_entries, users

_BALANCES = (
    select(users.c.id, credit_accounts.c.currency, credit_accounts.c.available, credit_accounts.c.held)
    .select_from(users.outerjoin(credit_accounts))
    .where(users.c.id == bindparam("user_id"))
    .order_by(credit_accounts.c.currency)
)
# More than what the message of an entry needs beside its description.
_ENTRY_BYTES = 350


class CreditQueries:
    """Implements `service.application.ports.queries.CreditQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def balances(self, user_id: UUID) -> Sequence[Row[Any]] | None:
        """Return the user's credit, one row for each currency, sorted by currency."""
        rows = await self._reader.all(_BALANCES, {"user_id": user_id})
        # A user without credit has one row of nulls; a user that does not exist has no row.
        return [row for row in rows if row.currency is not None] if rows else None

    async def entries(self, user_id: UUID, currency: str | None, page: Page) -> PageOfRows | None:
        """Return a page of the user's ledger entries, newest first."""
        statement = select(credit_entries).where(credit_entries.c.user_id == users.c.id)
        if currency is not None:
            statement = statement.where(credit_entries.c.currency == currency)
        key = credit_entries.c.position
        return await self._reader.page_of(users, user_id, statement, key, page, descending=True, size=_entry_size)


def _entry_size(row: FromClause) -> ColumnElement[int]:
    return text_size(row.c.description) + text_size(row.c.actor) + literal_column(str(_ENTRY_BYTES), Integer)
