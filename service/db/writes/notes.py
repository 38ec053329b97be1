"""The repository of order notes."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm.attributes import set_attribute

from service.db.tables import order_notes, orders
from service.db.text_search import are_approximate, note_vector
from service.db.writes.transaction import LazyTransaction
from service.domain.errors import NoteNotFound
from service.domain.notes import OrderNote


class Notes:
    """Implements `service.application.ports.unit_of_work.NoteRepository` in a transaction."""

    def __init__(self, transaction: LazyTransaction) -> None:
        self._transaction = transaction

    async def add(self, note: OrderNote) -> None:
        """Add a new note to an order that is locked."""
        (await self._transaction.session()).add(note)

    async def get_for_update(self, note_id: UUID) -> OrderNote:
        """Return the note, with the note and its order locked against other changes; raises NoteNotFound."""
        session = await self._transaction.session()
        # The order is locked first, as everywhere. Both are locked, because PostgreSQL reads a row again after a wait
        # only if it locks that row.
        statement = select(OrderNote).join(orders, orders.c.id == order_notes.c.order_id)
        statement = statement.where(order_notes.c.id == note_id)
        note = await session.scalar(statement.with_for_update(key_share=True, of=[orders, order_notes]))
        if note is None:
            raise NoteNotFound(str(note_id))
        return note

    async def about_orders_of_others(self, author_id: UUID) -> Sequence[OrderNote]:
        """Return the notes of a locked author about orders of others, which are locked too."""
        session = await self._transaction.session()
        of_others = select(OrderNote).join(orders, orders.c.id == order_notes.c.order_id)
        of_others = of_others.where(order_notes.c.author_id == author_id, orders.c.user_id != author_id)
        of_others = of_others.order_by(order_notes.c.id)
        return (await session.scalars(of_others.with_for_update(of=order_notes))).all()

    async def write_words(self, limit: int) -> int:
        """Write the words of up to `limit` notes whose words a trigger wrote and that are not locked.

        Returns the number of notes updated.
        """
        session = await self._transaction.session()
        statement = select(OrderNote).where(are_approximate(order_notes.c.search)).order_by(order_notes.c.id)
        statement = statement.limit(limit).with_for_update(key_share=True, skip_locked=True)
        found = (await session.scalars(statement)).all()
        for note in found:
            set_attribute(note, "search", note_vector(note))
        return len(found)

    async def delete(self, note: OrderNote) -> None:
        """Delete the note when the unit of work is flushed."""
        await (await self._transaction.session()).delete(note)
