"""Whose things are; `service.application.ports.queries.OwnerQueries` documents each method."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ARRAY, Text, any_, bindparam, select

from service.db.arrays import is_one_of
from service.db.connections.reader import StatementReader
from service.db.connections.statement import Statement
from service.db.reads.users import folded_email
from service.db.tables import order_notes, orders, users
from service.domain.text import folded

_KEYS = any_(bindparam("keys", type_=ARRAY(Text)))
_ORDERS = Statement("owners_of_orders", select(orders.c.user_id).where(is_one_of(orders.c.id, "keys")))
_ORDER_NUMBERS = Statement("owners_of_order_numbers", select(orders.c.user_id).where(orders.c.order_number == _KEYS))
_NOTES = Statement("owners_of_notes", select(order_notes.c.author_id).where(is_one_of(order_notes.c.id, "keys")))
_EMAILS = Statement("owners_of_emails", select(users.c.id).where(folded_email == _KEYS))
_USERNAMES = Statement("owners_of_usernames", select(users.c.id).where(users.c.username == _KEYS))


class OwnerQueries:
    """Implements `service.application.ports.queries.OwnerQueries`.

    It reads from the primary, also for calls that prefer the replica, where an order may still belong to a former
    owner.
    """

    def __init__(self, reader: StatementReader) -> None:
        self._reader = reader

    async def of_orders(self, order_ids: Sequence[str]) -> Sequence[UUID]:
        """Return the users to whom the orders with these ids belong."""
        return await self._owners(_ORDERS, order_ids)

    async def of_order_numbers(self, order_numbers: Sequence[str]) -> Sequence[UUID]:
        """Return the users to whom the orders with these numbers belong."""
        return await self._owners(_ORDER_NUMBERS, order_numbers)

    async def of_notes(self, note_ids: Sequence[str]) -> Sequence[UUID]:
        """Return the authors of the notes with these ids."""
        return await self._owners(_NOTES, note_ids)

    async def of_emails(self, emails: Sequence[str]) -> Sequence[UUID]:
        """Return the users with these e-mail addresses, ignoring case."""
        return await self._owners(_EMAILS, [folded(email) for email in emails])

    async def of_usernames(self, usernames: Sequence[str]) -> Sequence[UUID]:
        """Return the users with these usernames, ignoring case."""
        return await self._owners(_USERNAMES, [folded(username) for username in usernames])

    async def _owners(self, statement: Statement, keys: Sequence[str]) -> Sequence[UUID]:
        reader = self._reader
        reading = reader.executor.fetch(statement, {"keys": keys}, time_left=reader.time_left())
        # Shielded, because its cancellation would discard the connection.
        rows = await reader.shielded_tasks.run(reading)
        return [owner for (owner,) in rows]
