import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.orders.v1.order_pb2 import OrderCreditState, OrderEventType
from google.type.money_pb2 import Money

from service.application.maintenance import expire_holds, purge_deleted_users
from service.db.reads.maintenance import MaintenanceQueries
from service.server import Server
from tests.support.clients import Clients, connect, item, new_order
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.processes import run_command
from tests.support.servers import running_server

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

        class Found(MaintenanceQueries):
            async def orders_with_expired_holds(self, _now: datetime) -> Sequence[UUID]:
                return ids

        found = Found(None)  # type: ignore[arg-type] # it reads nothing
        unit_of_work = functools.partial(store.unit_of_work, actor="gc", request=None, time_left=lambda: 5)
        assert await expire_holds(unit_of_work, found, now, unexpected) == 1
