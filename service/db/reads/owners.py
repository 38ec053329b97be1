"""Whose orders, notes and logins are; `service.application.ports.queries.OwnerQueries` documents each method."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import bindparam, select

from service.db.arrays import is_one_of
from service.db.connections.reader import StatementReader
from service.db.connections.statement import Statement
from service.db.reads.users import folded_email
from service.db.tables import order_notes, orders, users
from service.domain.text import folded

_ORDERS = Statement("owners_of_orders", select(orders.c.user_id).where(is_one_of(orders.c.id, "ids")))
_ORDER_NUMBER = Statement(
    "owner_of_order_number", select(orders.c.user_id).where(orders.c.order_number == bindparam("order_number"))
)
_NOTES = Statement("authors_of_notes", select(order_notes.c.author_id).where(is_one_of(order_notes.c.id, "ids")))
_EMAIL = Statement("user_id_of_email", select(users.c.id).where(folded_email == bindparam("email")))
_USERNAME = Statement("user_id_of_username", select(users.c.id).where(users.c.username == bindparam("username")))


class OwnerQueries:
    """Implements `service.application.ports.queries.OwnerQueries`.

    Reads from the primary, also for calls that prefer the replica: there, an order may still belong to a former owner.
    """

    def __init__(self, reader: StatementReader) -> None:
        self._reader = reader

    async def of_orders(self, order_ids: Sequence[str]) -> Sequence[UUID]:
        """Return the owners of the orders with these ids, which are different."""
        return await self._owners(_ORDERS, {"ids": order_ids})

    async def of_order_number(self, order_number: str) -> Sequence[UUID]:
        """Return the owner of the order with this number."""
        return await self._owners(_ORDER_NUMBER, {"order_number": order_number})

    async def of_notes(self, note_ids: Sequence[str]) -> Sequence[UUID]:
        """Return the authors of the notes with these ids, which are different."""
        return await self._owners(_NOTES, {"ids": note_ids})

    async def of_email(self, email: str) -> Sequence[UUID]:
        """Return the id of the user with this e-mail address, ignoring case."""
        return await self._owners(_EMAIL, {"email": folded(email)})

    async def of_username(self, username: str) -> Sequence[UUID]:
        """Return the id of the user with this username, ignoring case."""
        return await self._owners(_USERNAME, {"username": folded(username)})

    async def _owners(self, statement: Statement, values: Mapping[str, object]) -> Sequence[UUID]:
        reader = self._reader
        # Shielded, because its cancellation would discard the connection.
        rows = await reader.shielded_tasks.run(
            reader.executor.fetch(statement, values, time_left=reader.time_left())
        )
        return [row[0] for row in rows]
