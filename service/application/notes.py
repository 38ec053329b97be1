"""Use cases of the notes about orders."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from service.application.etags import check_etag
from service.application.ports.unit_of_work import UnitOfWork
from service.domain.notes import OrderNote


async def create_note(uow: UnitOfWork, order_id: UUID, author_id: UUID, body: str, now: datetime) -> OrderNote:
    """Write a note about an order.

    Raises:
        UserNotFound, UserNotActive: the author cannot write notes.
        OrderNotFound, InvalidField: there is no such order, or the body is invalid.
    """
    author = await uow.users.get_for_share(author_id)
    author.require_active("write notes")
    await uow.orders.lock(order_id)
    note = OrderNote.write(order_id, author_id, body, now)
    await uow.notes.add(note)
    return note


async def change_note(uow: UnitOfWork, note_id: UUID, etag: str, change: Callable[[OrderNote], None]) -> OrderNote:
    """Apply a method of the note; raises NoteNotFound, EtagMismatch and the errors of the method."""
    note = await uow.notes.get_for_update(note_id)
    check_etag(note, etag)
    change(note)
    return note


async def delete_note(uow: UnitOfWork, note_id: UUID, etag: str, now: datetime) -> None:
    """Delete a note permanently; raises NoteNotFound and EtagMismatch."""
    note = await change_note(uow, note_id, etag, lambda note: note.delete(now))
    await uow.notes.delete(note)
