"""The write side of the notes of orders."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import order_notes, orders
from service.domain.errors import NoteNotFound
from service.domain.notes import OrderNote


class Notes:
    """Implements `service.application.ports.unit_of_work.NoteRepository` in the transaction that `begin` gives."""

    def __init__(self, begin: Callable[[], Awaitable[AsyncSession]]) -> None:
        self._begin = begin

    async def add(self, note: OrderNote) -> None:
        """Keep a new note of an order that is locked."""
        (await self._begin()).add(note)

    async def get_for_update(self, note_id: UUID) -> OrderNote:
        """Return the note, it and its order locked against other changes; raises NoteNotFound."""
        session = await self._begin()
        # The order first, as everyone does. Both, because only what is locked is read anew after a wait.
        statement = select(OrderNote).join(orders, orders.c.id == order_notes.c.order_id)
        statement = statement.where(order_notes.c.id == note_id)
        note = await session.scalar(statement.with_for_update(key_share=True, of=[orders, order_notes]))
        if note is None:
            raise NoteNotFound(str(note_id))
        return note

    async def delete(self, note: OrderNote) -> None:
        """Delete the note with the flush."""
        await (await self._begin()).delete(note)
