from datetime import timedelta
from uuid import uuid4

import pytest

from service.application.notes import change_note, create_note, delete_note
from service.application.orders import create_order
from service.application.ports.queries import NoteFilter, Page, Row
from service.application.users import change_user
from service.db.database import Database
from service.domain.errors import (
    EtagMismatch,
    IllegalTransition,
    InvalidField,
    NoteNotFound,
    OrderNotFound,
    UserNotActive,
    UserNotFound,
)
from service.domain.notes import NoteState, OrderNote
from service.domain.orders import Order
from service.domain.users import User
from tests.application.test_orders import FIELDS
from tests.support.stores import NOW, add_user, unit_of_work

LATER = NOW + timedelta(seconds=1)


@pytest.fixture
async def user(store: Database) -> User:
    return await add_user(store)


@pytest.fixture
async def order(store: Database, user: User) -> Order:
    async with unit_of_work(store) as uow:
        order = await create_order(uow, user.id, FIELDS, NOW)
        await uow.commit(b"")
    return order


@pytest.fixture
async def note(store: Database, order: Order, user: User) -> OrderNote:
    async with unit_of_work(store) as uow:
        note = await create_note(uow, order.id, user.id, "Fragile", NOW)
        await uow.commit(b"")
    return note


async def stored(store: Database, order: Order) -> list[Row]:
    where = NoteFilter(order_id=order.id, author_id=None, include_drafts=True)
    return list((await store.note_queries.page(where, Page(10, None, include_total_size=False))).rows)


async def test_an_active_user_writes_a_note(store: Database, order: Order, user: User, note: OrderNote) -> None:
    (row,) = await stored(store, order)
    assert (row.id, row.order_id, row.author_id, row.body) == (note.id, order.id, user.id, "Fragile")
    assert (row.state, row.create_time) == (NoteState.DRAFT, NOW)


async def test_only_an_active_user_writes_a_note(store: Database, order: Order, user: User) -> None:
    async with unit_of_work(store) as uow:
        await change_user(uow, user.id, "", lambda user: user.deactivate(NOW))
        with pytest.raises(UserNotActive, match="can write notes"):
            await create_note(uow, order.id, user.id, "Fragile", NOW)
    assert await stored(store, order) == []


async def test_a_note_needs_an_author_an_order_and_a_body(store: Database, order: Order, user: User) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(UserNotFound):
            await create_note(uow, order.id, uuid4(), "Fragile", NOW)
        with pytest.raises(OrderNotFound):
            await create_note(uow, uuid4(), user.id, "Fragile", NOW)
        with pytest.raises(InvalidField):
            await create_note(uow, order.id, user.id, "", NOW)
        await uow.commit(b"")
    assert await stored(store, order) == []


async def test_a_note_is_changed_by_a_method(store: Database, order: Order, note: OrderNote) -> None:
    async with unit_of_work(store) as uow:
        changed = await change_note(uow, note.id, note.etag, lambda note: note.publish(LATER))
        await uow.commit(b"")
    assert (changed.id, changed.state) == (note.id, NoteState.PUBLISHED)
    (row,) = await stored(store, order)
    assert (row.state, row.publish_time) == (NoteState.PUBLISHED, LATER)


async def test_a_stale_etag_is_reported_before_other_failures(store: Database, order: Order, note: OrderNote) -> None:
    async with unit_of_work(store) as uow:
        await change_note(uow, note.id, "", lambda note: note.publish(LATER))
        with pytest.raises(EtagMismatch):
            await change_note(uow, note.id, "v1", lambda note: note.publish(LATER))
        with pytest.raises(EtagMismatch):
            await delete_note(uow, note.id, "v1", LATER)
        with pytest.raises(IllegalTransition):
            await change_note(uow, note.id, "v2", lambda note: note.publish(LATER))
        await uow.commit(b"")
    assert len(await stored(store, order)) == 1


async def test_a_missing_note_can_be_neither_changed_nor_deleted(store: Database) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(NoteNotFound):
            await change_note(uow, uuid4(), "", lambda note: note.publish(LATER))
        with pytest.raises(NoteNotFound):
            await delete_note(uow, uuid4(), "", LATER)


async def test_a_deleted_note_stays_only_in_the_timeline(store: Database, order: Order, note: OrderNote) -> None:
    async with unit_of_work(store) as uow:
        await delete_note(uow, note.id, note.etag, LATER)
        await uow.commit(b"")
    assert await stored(store, order) == []
    timeline = await store.order_queries.events(order.id, Page(10, None, include_total_size=False))
    assert timeline is not None
    events = [(row.type, row.create_time) for row in timeline.rows]
    assert events == [("CREATED", NOW), ("NOTE_CREATED", NOW), ("NOTE_DELETED", LATER)]
