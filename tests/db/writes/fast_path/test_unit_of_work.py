"""What the fast path refuses: everything that is not one statement raises NeedsTransaction, and nothing is written."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from uuid_utils.compat import uuid7

from service.application.credit import transfer_credit
from service.application.orders import confirm_order, create_order
from service.application.ports.errors import DeadlineExceeded, NeedsTransaction
from service.application.ports.unit_of_work import RequestKey, UnitOfWork
from service.config import DatabaseSettings, load
from service.db.database import Database
from service.domain.errors import IllegalTransition, OrderNotFound
from service.domain.events import Event
from service.domain.money import Money
from service.domain.orders import ItemFields, Order, OrderFields
from service.server import FAST_PATH_METHODS, MESSAGE_ENCODERS
from tests.support.methods import METHODS, path_of
from tests.support.requests import order_in
from tests.support.servers import OwnServer

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FIELDS = OrderFields(items=[ItemFields("anvil", "Anvil", 1, Money("EUR", Decimal(10)))])


@pytest.fixture
async def database(own: OwnServer) -> AsyncIterator[Database]:
    database = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), MESSAGE_ENCODERS)
    yield database
    await database.close()


def fast_path(database: Database, *, request: RequestKey | None = None, seconds: float = 10) -> Any:
    return database.fast_path(actor="tests", request=request, time_left=lambda: seconds)


async def attempt(database: Database, work: Callable[[UnitOfWork], Awaitable[object]], **options: Any) -> None:
    """Do some work on the fast path, and commit it."""
    async with fast_path(database, **options) as uow:
        await work(uow)
        await uow.commit(b"")


def request_key() -> RequestKey:
    return RequestKey("tests", "/commerce.orders.v1.OrderService/ConfirmOrder", uuid4(), b"digest")


async def place(uow: UnitOfWork, user_id: UUID) -> Order:
    return await create_order(uow, user_id, FIELDS, NOW)


async def use_notes(uow: UnitOfWork) -> None:
    await uow.notes.get_for_update(uuid7())


async def lock_credit(uow: UnitOfWork) -> None:
    await uow.credit.lock([(uuid7(), "EUR")])


async def lock_order(uow: UnitOfWork) -> None:
    await uow.orders.get_for_update(uuid7())


async def lock_user(uow: UnitOfWork) -> None:
    await uow.users.get_for_update(uuid7())


async def begin(uow: UnitOfWork) -> None:
    await uow.begin()


async def record_event(uow: UnitOfWork) -> None:
    uow.record([Event("user", uuid7(), "PURGED", NOW)])


async def open_savepoint(uow: UnitOfWork) -> None:
    async with uow.savepoint():
        pass


async def flush(uow: UnitOfWork) -> None:
    await uow.flush()


async def require_two_users(uow: UnitOfWork) -> None:
    await uow.users.require_active(uuid7(), "place orders")
    await uow.users.require_active(uuid7(), "place orders")


async def place_two_orders(uow: UnitOfWork) -> None:
    user_id = uuid7()
    order = await place(uow, user_id)
    await uow.orders.add(order)


async def place_for_another_user(uow: UnitOfWork) -> None:
    order = Order.place(uuid7(), await uow.orders.next_number(), FIELDS, NOW)
    await uow.users.require_active(uuid7(), "place orders")
    await uow.orders.add(order)


async def do_nothing(_uow: UnitOfWork) -> None:
    pass


async def move_credit(uow: UnitOfWork) -> None:
    await transfer_credit(uow, uuid7(), uuid7(), Money("EUR", Decimal(1)), "", NOW)


@pytest.mark.parametrize(
    "work",
    [
        use_notes,
        lock_credit,
        lock_order,
        lock_user,
        begin,
        record_event,
        open_savepoint,
        flush,
        require_two_users,
        place_two_orders,
        place_for_another_user,
        do_nothing,
        move_credit,
    ],
)
async def test_what_is_not_one_statement_needs_a_transaction(
    own: OwnServer, database: Database, work: Callable[[UnitOfWork], Awaitable[None]]
) -> None:
    before = await own.rows()
    with pytest.raises(NeedsTransaction):
        await attempt(database, work)
    assert await own.rows() == before


async def test_two_orders_cannot_be_read_for_one_statement(own: OwnServer, database: Database) -> None:
    first, second = await order_in(own.clients, "PENDING"), await order_in(own.clients, "PENDING")
    async with fast_path(database) as uow:
        await uow.orders.get_for_transition(UUID(first.id))
        with pytest.raises(NeedsTransaction):
            await uow.orders.get_for_transition(UUID(second.id))


async def test_an_illegal_transition_is_refused_immediately_only_without_a_request_id(
    own: OwnServer, database: Database
) -> None:
    order = await order_in(own.clients, "CONFIRMED")
    with pytest.raises(IllegalTransition):
        async with fast_path(database) as uow:
            await confirm_order(uow, UUID(order.id), "", NOW)
    # With one, an earlier call with this request id may have confirmed the order: only the claim tells.
    with pytest.raises(NeedsTransaction):
        async with fast_path(database, request=request_key()) as uow:
            await confirm_order(uow, UUID(order.id), "", NOW)


async def test_a_missing_order_is_not_found(database: Database) -> None:
    with pytest.raises(OrderNotFound):
        async with fast_path(database) as uow:
            await confirm_order(uow, uuid7(), "", NOW)


async def test_no_statement_is_sent_after_the_deadline(own: OwnServer, database: Database) -> None:
    user = await own.clients.create_user()
    before = await own.rows()
    with pytest.raises(DeadlineExceeded):
        await attempt(database, lambda uow: place(uow, UUID(user.id)), seconds=0)
    assert await own.rows() == before


async def test_a_statement_that_fails_a_check_writes_nothing(own: OwnServer, database: Database) -> None:
    before = await own.rows()
    with pytest.raises(NeedsTransaction):
        # There is no such user.
        await attempt(database, lambda uow: place(uow, uuid7()), request=request_key())
    assert await own.rows() == before


async def test_without_encoded_messages_orders_are_placed_and_transitions_need_a_transaction(own: OwnServer) -> None:
    user = await own.clients.create_user()
    plain = Database(load(DatabaseSettings, DATABASE_URL=own.database_url), encoders=None)
    async with fast_path(plain) as uow:
        order = await place(uow, UUID(user.id))
        await uow.commit(b"")
    assert await own.connection.fetchval("SELECT message IS NULL FROM orders WHERE id = $1", order.id)
    with pytest.raises(NeedsTransaction):
        async with fast_path(plain) as uow:
            await confirm_order(uow, order.id, "", NOW)
    await plain.close()
    # A server that encodes messages reads the columns, and encodes the order when it changes it.
    confirmed = (await own.clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=str(order.id)))).order
    assert confirmed.total_amount.units == 10
    assert not await own.connection.fetchval("SELECT message IS NULL FROM orders WHERE id = $1", order.id)


def test_the_methods_of_the_fast_path_are_mutations_that_exist() -> None:
    mutations = {
        path_of(name)
        for name, method in METHODS.items()
        if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
    }
    assert set(FAST_PATH_METHODS) <= mutations
