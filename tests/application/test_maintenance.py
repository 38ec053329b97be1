import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import OrderCreditState, OrderEventType
from google.type.money_pb2 import Money

from service.application.credit import grant_credit
from service.application.maintenance import (
    BATCH,
    backfill_encoded_users,
    by_itself,
    expire_holds,
    purge_again,
    purge_deleted_users,
)
from service.application.orders import confirm_order, create_order
from service.application.ports.errors import Contention, DatabaseUnavailable
from service.application.ports.unit_of_work import UnitOfWork
from service.config import DatabaseSettings, load
from service.db.database import Database
from service.db.reads.maintenance import MaintenanceQueries
from service.domain.money import Money as DomainMoney
from service.domain.orders import ItemFields
from service.server import MESSAGE_ENCODERS, Server
from tests.support.clients import Clients, connect, item, new_order
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.processes import run_command
from tests.support.servers import running_server
from tests.support.stores import NOW, add_user, unit_of_work

EURO = Money(currency_code="EUR", units=1)
# As documents and protos promise.
HOLD_FOR = timedelta(days=7)
PURGE_AFTER = timedelta(days=30)


def unexpected(name: str, error: Exception) -> None:
    raise AssertionError(name) from error


async def expire(server: Server, now: datetime) -> int:
    store = server.database
    return await expire_holds(
        lambda: store.unit_of_work(actor="gc", request=None, time_left=lambda: 5),
        store.maintenance_queries,
        now,
        unexpected,
    )


async def purge(server: Server, now: datetime) -> tuple[int, int]:
    store = server.database
    return await purge_deleted_users(
        lambda: store.unit_of_work(actor="gc", request=None, time_left=lambda: 5),
        store.maintenance_queries,
        now,
        unexpected,
    )


async def place_with_credit(clients: Clients, units: int) -> tuple[str, str]:
    user = await clients.create_user()
    amount = Money(currency_code="EUR", units=units)
    await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user.id, amount=amount))
    order = new_order(user.id, items=[item("anvil", 1, units)])
    placed = await clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=order, pay_with_credit=True))
    return user.id, placed.order.id


async def available(clients: Clients, user_id: str) -> int:
    response = await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user_id))
    return response.balances[0].available.units


async def test_a_hold_expires_and_its_credit_is_given_back(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        user_id, order_id = await place_with_credit(clients, 30)
        order = (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))).order
        assert order.credit.expire_time.ToDatetime() - order.create_time.ToDatetime() == HOLD_FOR
        now = datetime.now(UTC)
        assert await expire(server, now + HOLD_FOR - timedelta(minutes=1)) == 0
        assert await available(clients, user_id) == 0
        assert await expire(server, now + HOLD_FOR) == 1
        assert await expire(server, now + HOLD_FOR) == 0
        assert await available(clients, user_id) == 30
        order = (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))).order
        assert order.credit.state == OrderCreditState.ORDER_CREDIT_STATE_EXPIRED
        events = await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order_id))
        assert (events.events[-1].type, events.events[-1].actor) == (
            OrderEventType.ORDER_EVENT_TYPE_CREDIT_EXPIRED,
            "gc",
        )


async def test_confirming_after_the_hold_expired_takes_available_credit(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        user_id, order_id = await place_with_credit(clients, 30)
        other_id, other_order_id = await place_with_credit(clients, 30)
        assert await expire(server, datetime.now(UTC) + HOLD_FOR) == 2
        confirmed = (await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))).order
        assert confirmed.credit.state == OrderCreditState.ORDER_CREDIT_STATE_POSTED
        assert await available(clients, user_id) == 0
        everything = Money(currency_code="EUR", units=30)
        spend = pb.TransferCreditRequest(from_user_id=other_id, to_user_id=user_id, amount=everything)
        await clients.users.TransferCredit(spend)
        with fails(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDIT"):
            await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=other_order_id))


async def test_users_deleted_long_ago_are_erased_unless_they_have_orders_or_credit(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        gone, kept, alive = [await clients.create_user() for _ in range(3)]
        await clients.create_order(kept.id)
        for user in (gone, kept):
            await clients.users.DeleteUser(pb.DeleteUserRequest(id=user.id))
        now = datetime.now(UTC)
        assert await purge(server, now + PURGE_AFTER - timedelta(minutes=1)) == (0, 0)
        assert await purge(server, now + PURGE_AFTER) == (1, 1)
        with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
            await clients.users.GetUser(pb.GetUserRequest(id=gone.id))
        listed = await clients.users.ListUsers(pb.ListUsersRequest(show_deleted=True))
        assert {user.id for user in listed.users} == {kept.id, alive.id}


async def test_users_are_purged_again_also_with_orders_and_credit_and_those_that_are_gone_do_not_count(
    database_url: str,
) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        user_id, _ = await place_with_credit(clients, 30)
        alive = await clients.create_user()
        unit_of_work = functools.partial(server.database.unit_of_work, actor="gc", request=None, time_left=lambda: 5)
        ids = [uuid4(), UUID(user_id)]
        assert await purge_again(unit_of_work, ids, datetime.now(UTC), unexpected) == 1
        assert await purge_again(unit_of_work, ids, datetime.now(UTC), unexpected) == 0
        listed = await clients.users.ListUsers(pb.ListUsersRequest(show_deleted=True))
        assert [user.id for user in listed.users] == [alive.id]


async def test_one_order_that_cannot_expire_stops_no_other(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        orders = [await place_with_credit(clients, 1) for _ in range(3)]
        user_id, order_id = orders[1]
        most = Money(currency_code="EUR", units=999_999_999_999_999)
        await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user_id, amount=most))
        gone = await clients.create_user()
        await clients.users.DeleteUser(pb.DeleteUserRequest(id=gone.id))
        async with driver_connection(database_url) as connection:
            await connection.execute("UPDATE orders SET credit_expire_time = now() - interval '1 second'")
            await connection.execute("UPDATE users SET purge_time = now() WHERE state = 'DELETED'")
        finished = await run_command("gc", database_url=database_url)
        assert finished.status == 1
        assert "released the expired credit holds of 2 orders\n" in finished.stdout
        assert "purged 1 deleted users; 0 others" in finished.stdout
        assert f'"part":"orders/{order_id}","reason":"AMOUNT_OUT_OF_RANGE"' in finished.stderr
        assert "parts of the maintenance that failed: 1" in finished.stderr
        # Once there is room for it, the credit is given back.
        spent = pb.TransferCreditRequest(from_user_id=user_id, to_user_id=orders[0][0], amount=EURO)
        await clients.users.TransferCredit(spent)
        assert (await run_command("gc", database_url=database_url)).status == 0
        assert await available(clients, user_id) == most.units


async def test_an_order_that_was_purged_meanwhile_is_no_failure(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        user_id, _ = await place_with_credit(clients, 1)
        await place_with_credit(clients, 1)
        store, now = server.database, datetime.now(UTC) + HOLD_FOR
        ids = await store.maintenance_queries.orders_with_expired_holds(now)
        await clients.users.PurgeUser(pb.PurgeUserRequest(id=user_id, force=True))
        found = Found(*ids)
        unit_of_work = functools.partial(store.unit_of_work, actor="gc", request=None, time_left=lambda: 5)
        assert await expire_holds(unit_of_work, found, now, unexpected) == 1


class Failures:
    """Collects what is reported as failed."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, Exception]] = []

    def __call__(self, name: str, error: Exception) -> None:
        self.reported.append((name, error))


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Return work that raises these errors one after the other, and then returns "done"."""
    left = list(errors)

    async def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


async def test_a_part_of_the_maintenance_returns_its_result() -> None:
    assert await by_itself("orders/1", failing(), unexpected, "failed") == "done"


@pytest.mark.parametrize("count", [1, 2])
async def test_a_part_that_meets_another_transaction_is_tried_three_times(count: int) -> None:
    assert await by_itself("orders/1", failing(*[Contention()] * count), unexpected, "failed") == "done"


async def test_a_part_that_fails_is_reported_with_its_name() -> None:
    failures, last = Failures(), Contention()
    assert await by_itself("orders/1", failing(Contention(), Contention(), last), failures, "failed") == "failed"
    assert failures.reported == [("orders/1", last)]


async def test_a_part_that_would_fail_again_is_not_tried_again() -> None:
    failures, error = Failures(), ValueError()
    assert await by_itself("orders/1", failing(error), failures, "failed") == "failed"
    assert failures.reported == [("orders/1", error)]


async def test_an_outage_ends_the_whole_maintenance() -> None:
    with pytest.raises(DatabaseUnavailable):
        await by_itself("orders/1", failing(DatabaseUnavailable()), unexpected, "failed")


class Found(MaintenanceQueries):
    """Finds these ids and reads nothing."""

    def __init__(self, *ids: UUID) -> None:
        self._ids = ids

    async def orders_with_expired_holds(self, _now: datetime) -> Sequence[UUID]:
        return self._ids

    async def users_to_purge(self, _now: datetime) -> Sequence[UUID]:
        return self._ids


async def held_order(store: Database) -> UUID:
    user = await add_user(store)
    async with unit_of_work(store) as uow:
        euro = DomainMoney("EUR", Decimal(1))
        await grant_credit(uow, user.id, euro, "", NOW)
        await uow.commit(b"")
    async with unit_of_work(store) as uow:
        order = await create_order(
            uow, user.id, {"items": [ItemFields("anvil", "Anvil", 1, euro)]}, NOW, pay_with_credit=True
        )
        await uow.commit(b"")
    return order.id


async def test_only_what_has_expired_is_counted(store: Database) -> None:
    orders, missing = [await held_order(store) for _ in range(3)], uuid4()
    async with unit_of_work(store) as uow:
        await confirm_order(uow, orders[1], "", NOW)
        await uow.commit(b"")
    found, open_unit_of_work = Found(*orders, missing), functools.partial(unit_of_work, store)
    assert await expire_holds(open_unit_of_work, found, NOW, unexpected) == 0
    assert await expire_holds(open_unit_of_work, found, NOW + HOLD_FOR, unexpected) == 2
    assert await expire_holds(open_unit_of_work, found, NOW + HOLD_FOR, unexpected) == 0


async def test_a_hold_that_cannot_expire_is_reported_by_its_order(store: Database) -> None:
    orders, failures = [await held_order(store) for _ in range(2)], Failures()
    fails_once = iter([True])

    def open_unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        if next(fails_once, False):
            raise ValueError
        return unit_of_work(store)

    assert await expire_holds(open_unit_of_work, Found(*orders), NOW + HOLD_FOR, failures) == 1
    assert [name for name, _ in failures.reported] == [f"orders/{orders[0]}"]


async def test_users_are_purged_one_by_one_and_counted(store: Database) -> None:
    users, failures = [await add_user(store) for _ in range(4)], Failures()
    for user in users[:2]:
        async with unit_of_work(store) as uow:
            await grant_credit(uow, user.id, DomainMoney("EUR", Decimal(1)), "", NOW)
            await uow.commit(b"")
    fails_once = iter([False, False, True])

    def open_unit_of_work() -> AbstractAsyncContextManager[UnitOfWork]:
        if next(fails_once, False):
            raise ValueError
        return unit_of_work(store)

    found = Found(*(user.id for user in users), uuid4())
    assert await purge_deleted_users(open_unit_of_work, found, NOW, failures) == (1, 2)
    assert [name for name, _ in failures.reported] == [f"users/{users[2].id}"]
    async with driver_connection_of(store) as connection:
        query = "SELECT create_time FROM events WHERE aggregate_id = $1 AND type = 'PURGED'"
        assert await connection.fetchval(query, users[3].id) == NOW


def driver_connection_of(store: Database) -> AbstractAsyncContextManager[asyncpg.Connection]:
    return driver_connection(store.engine.url.render_as_string(hide_password=False))


async def test_messages_are_backfilled_in_batches_until_none_is_missing(database_url: str) -> None:
    store = Database(load(DatabaseSettings, DATABASE_URL=database_url), MESSAGE_ENCODERS)
    users = [await add_user(store) for _ in range(5)]
    missing = "SELECT count(*) FROM users WHERE message IS NULL"
    async with driver_connection(database_url) as connection:
        await connection.execute("UPDATE users SET message = NULL")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.application.maintenance.BATCH", 2)
            assert await backfill_encoded_users(functools.partial(unit_of_work, store)) == len(users)
        assert await connection.fetchval(missing) == 0
    assert await backfill_encoded_users(functools.partial(unit_of_work, store)) == 0
    await store.close()


def test_a_batch_has_five_hundred_rows() -> None:
    assert BATCH == 500
