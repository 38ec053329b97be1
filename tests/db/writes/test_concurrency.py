"""Concurrent calls on the same rows. A lock held by the test brings them to the same point before any proceeds."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import (
    ORDER_STATUS_CANCELLED,
    ORDER_STATUS_CONFIRMED,
    ORDER_STATUS_PENDING,
    Order,
    OrderEventType,
    OrderStatus,
)
from google.type.money_pb2 import Money
from structlog.testing import capture_logs

from tests.support.clients import Clients, connect, item, new_order, new_user
from tests.support.databases import Observer, observing
from tests.support.failures import Failure, settled
from tests.support.locks import CREATE_ORDER, holding, holding_request_id
from tests.support.passwords import PASSWORD
from tests.support.requests import user_with_credit
from tests.support.servers import running_server
from tests.support.waiting import eventually

LOCK_USER = "SELECT FROM users WHERE id = $1 FOR UPDATE"
# Of the ten connections of a pool.
MAX_TRANSACTIONS = 8
LOCK_ORDER = "SELECT FROM orders WHERE id = $1 FOR UPDATE"


Call = Callable[[], Awaitable[Any]]


async def race(url: str, lock: str, row_id: str, *calls: Call) -> tuple[list[Any], list[Failure]]:
    """Start the calls, and let them go once all of them wait for the row, or for a connection."""
    async with observing(url) as observer:
        async with holding(url, lock, UUID(row_id)):
            started = [asyncio.ensure_future(call()) for call in calls]
            await observer.until_waiting(min(len(calls), MAX_TRANSACTIONS))
        return await settled(*started)


def codes(failures: list[Failure]) -> list[tuple[grpc.StatusCode, str]]:
    return [(failure.code, failure.reason) for failure in failures]


def amount(money: Money) -> Decimal:
    return money.units + Decimal(money.nanos) / 10**9


async def events_of(clients: Clients, order: Order) -> list[str]:
    answer = await clients.orders.ListOrderEvents(pb.ListOrderEventsRequest(order_id=order.id))
    return [OrderEventType.Name(event.type).removeprefix("ORDER_EVENT_TYPE_") for event in answer.events]


async def read(clients: Clients, order: Order) -> Order:
    return (await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order


async def bring_to_processing(clients: Clients, order: Order) -> None:
    await clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id))
    await clients.orders.ProcessOrder(pb.ProcessOrderRequest(id=order.id))


@pytest.mark.parametrize("field", ["email", "username"])
async def test_of_two_users_with_one_name_exactly_one_is_created(clients: Clients, field: str) -> None:
    for _ in range(8):
        first, second = new_user(), new_user()
        if field == "email":
            second.email = first.email.upper()
        else:
            second.username = first.username
        requests = [users_pb.CreateUserRequest(user=user, password=PASSWORD) for user in (first, second)]
        created, failures = await settled(*map(clients.users.CreateUser, requests))
        assert len(created) == 1
        assert codes(failures) == [(grpc.StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS")]
        assert failures[0].metadata == {"field": field}


async def test_ten_calls_with_one_request_id_make_one_order_and_get_the_same_bytes(
    clients: Clients, shared_database_url: str
) -> None:
    user = await clients.create_user()
    metadata = {f"key {number}": "value" for number in range(20)}
    request = pb.CreateOrderRequest(order=new_order(user.id, metadata=metadata), request_id=str(uuid4()))
    # Without a deserializer the answers are the bytes from the wire.
    create: grpc.aio.UnaryUnaryMultiCallable[pb.CreateOrderRequest, bytes] = clients.channel.unary_unary(
        CREATE_ORDER, request_serializer=pb.CreateOrderRequest.SerializeToString
    )
    answers, failures = await race(shared_database_url, LOCK_USER, user.id, *[partial(create, request)] * 10)
    assert not failures
    assert len(answers) == 10
    assert len(set(answers)) == 1
    async with observing(shared_database_url) as observer:
        assert await observer.count("orders", "user_id = $1", UUID(user.id)) == 1


async def test_of_two_updates_with_one_etag_one_is_aborted(clients: Clients, shared_database_url: str) -> None:
    order = await clients.create_order((await clients.create_user()).id)
    changes = [Order(id=order.id, etag=order.etag, external_ref=reference) for reference in ("left", "right")]
    calls = [partial(clients.orders.UpdateOrder, pb.UpdateOrderRequest(order=change)) for change in changes]
    updated, failures = await race(shared_database_url, LOCK_ORDER, order.id, *calls)
    assert codes(failures) == [(grpc.StatusCode.ABORTED, "ETAG_MISMATCH")]
    assert await read(clients, order) == updated[0].order
    assert await events_of(clients, order) == ["CREATED", "UPDATED"]


def confirm(clients: Clients, order_id: str) -> Call:
    return partial(clients.orders.ConfirmOrder, pb.ConfirmOrderRequest(id=order_id))


def ship(clients: Clients, order_id: str) -> Call:
    return partial(clients.orders.ShipOrder, pb.ShipOrderRequest(id=order_id, tracking_number="T-1"))


def cancel(clients: Clients, order_id: str) -> Call:
    return partial(clients.orders.CancelOrder, pb.CancelOrderRequest(id=order_id, reason="changed my mind"))


Change = Callable[[Clients, str], Call]


@pytest.mark.parametrize(
    ("first", "second", "in_processing"),
    [
        pytest.param(confirm, confirm, False, id="confirm and confirm"),
        pytest.param(cancel, cancel, False, id="cancel and cancel"),
        pytest.param(ship, cancel, True, id="ship and cancel"),
        pytest.param(cancel, ship, True, id="cancel and ship"),
    ],
)
async def test_of_two_transitions_that_exclude_each_other_one_happens(
    clients: Clients, shared_database_url: str, first: Change, second: Change, *, in_processing: bool
) -> None:
    order = await clients.create_order((await clients.create_user()).id)
    if in_processing:
        await bring_to_processing(clients, order)
    before = await events_of(clients, order)
    calls = [first(clients, order.id), second(clients, order.id)]
    done, failures = await race(shared_database_url, LOCK_ORDER, order.id, *calls)
    assert codes(failures) == [(grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")]
    now = await read(clients, order)
    assert now == done[0].order
    assert await events_of(clients, order) == [*before, OrderStatus.Name(now.status).removeprefix("ORDER_STATUS_")]


async def test_concurrent_confirm_cancel_and_confirm_end_as_if_run_one_after_another(
    clients: Clients, shared_database_url: str
) -> None:
    order = await clients.create_order((await clients.create_user()).id)
    calls = [call(clients, order.id) for call in (confirm, cancel, confirm)]
    done, failures = await race(shared_database_url, LOCK_ORDER, order.id, *calls)
    assert set(codes(failures)) == {(grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")}
    events = await events_of(clients, order)
    assert events in (["CREATED", "CONFIRMED", "CANCELLED"], ["CREATED", "CANCELLED"])
    assert len(done) == len(events) - 1
    assert (await read(clients, order)).status == ORDER_STATUS_CANCELLED


async def test_no_order_is_placed_after_its_user_was_deactivated(clients: Clients, shared_database_url: str) -> None:
    user = await clients.create_user()
    creates = [partial(clients.create_order, user.id)] * 4
    deactivate = partial(clients.users.DeactivateUser, users_pb.DeactivateUserRequest(id=user.id))
    calls: list[Call] = [*creates, deactivate, *creates]
    answers, failures = await race(shared_database_url, LOCK_USER, user.id, *calls)
    assert len(answers) >= 1
    assert set(codes(failures)) <= {(grpc.StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE")}
    async with observing(shared_database_url) as observer:
        assert await observer.count("orders", "user_id = $1", UUID(user.id)) == len(answers) - 1
        # Each order's event was written under the lock that the deactivation waited for.
        deactivated = "(SELECT position FROM events WHERE aggregate_id = $1 AND type = 'DEACTIVATED')"
        of_user = "aggregate_id IN (SELECT id FROM orders WHERE user_id = $1)"
        assert await observer.count("events", f"{of_user} AND position > {deactivated}", UUID(user.id)) == 0


@pytest.mark.parametrize("on_fast_path", [True, False], ids=["fast path", "transaction"])
async def test_a_deactivation_waits_for_an_order_that_has_seen_the_user_active(
    clients: Clients, shared_database_url: str, *, on_fast_path: bool
) -> None:
    # The fast path gives up after 50 ms. If the deactivation comes later than that, the race is not tested.
    for _ in range(10):
        user_id = await user_with_credit(clients)
        answers, failures = await deactivated_while_placing(
            clients, shared_database_url, user_id, on_fast_path=on_fast_path
        )
        if not (on_fast_path and failures):
            break
    assert not failures
    position = "SELECT max(position) FROM events WHERE aggregate_id = $1"
    async with observing(shared_database_url) as observer:
        placed = await observer.connection.fetchval(position, answers[0].order.id)
        assert placed < await observer.connection.fetchval(position, user_id)


async def deactivated_while_placing(
    clients: Clients, database_url: str, user_id: str, *, on_fast_path: bool
) -> tuple[list[Any], list[Failure]]:
    """Create an order, and deactivate its user once the call has read it; return answers and failures of both."""
    order = new_order(user_id, items=[item("anvil", 1, 1)])
    request = pb.CreateOrderRequest(order=order, request_id=str(uuid4()), pay_with_credit=not on_fast_path)
    # The table that each kind of call waits for after it has read the user.
    held: Any = (
        holding_request_id(database_url, request.request_id)
        if on_fast_path
        else holding(database_url, "LOCK TABLE events IN SHARE MODE")
    )
    async with observing(database_url) as observer:
        async with held:
            placing = asyncio.ensure_future(clients.orders.CreateOrder(request))
            await observer.until_waiting(1)
            deactivate = clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user_id))
            deactivating = asyncio.ensure_future(deactivate)
            while not deactivating.done() and len(await observer.backends(waiting=True)) < 2:
                pass
        return await settled(placing, deactivating)


async def test_two_replacements_of_the_items_leave_one_whole(clients: Clients, shared_database_url: str) -> None:
    order = await clients.create_order((await clients.create_user()).id)
    left = [item("left", 1, 5), item("left", 2, 7)]
    right = [item("right", quantity, 3) for quantity in range(1, 5)]
    requests = [pb.UpdateOrderRequest(order=Order(id=order.id, items=items)) for items in (left, right)]
    calls = [partial(clients.orders.UpdateOrder, request) for request in requests]
    updated, failures = await race(shared_database_url, LOCK_ORDER, order.id, *calls)
    assert not failures
    by_product = {answer.order.items[0].product_id: answer.order for answer in updated}
    assert [product.quantity for product in by_product["left"].items] == [1, 2]
    assert [product.quantity for product in by_product["right"].items] == [1, 2, 3, 4]
    assert [amount(by_product[side].total_amount) for side in ("left", "right")] == [19, 30]
    assert await read(clients, order) in by_product.values()


async def test_a_confirmation_that_waited_for_an_update_answers_with_the_new_items(
    clients: Clients, shared_database_url: str
) -> None:
    order = await clients.create_order((await clients.create_user()).id)
    async with observing(shared_database_url) as observer:
        # An update writes its event last, so this stops it with the order's row locked.
        async with holding(shared_database_url, "LOCK TABLE events IN SHARE MODE"):
            change = Order(id=order.id, items=[item("new", 4, 25)])
            update = asyncio.ensure_future(clients.orders.UpdateOrder(pb.UpdateOrderRequest(order=change)))
            await observer.until_waiting(1)
            confirmation = asyncio.ensure_future(confirm(clients, order.id)())
            await observer.until_waiting(2)
        updated = (await update).order
        confirmed = (await confirmation).order
    assert [product.product_id for product in updated.items] == ["new"]
    assert confirmed.items == updated.items
    assert confirmed.total_amount == Money(currency_code="EUR", units=100)
    assert confirmed.status == ORDER_STATUS_CONFIRMED
    assert confirmed == await read(clients, order)


async def test_a_duplicate_does_the_work_when_the_first_call_fails(clients: Clients, shared_database_url: str) -> None:
    user = await clients.create_user()
    request = pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
    async with observing(shared_database_url) as observer:
        async with holding(shared_database_url, LOCK_USER, UUID(user.id)):
            first = asyncio.ensure_future(clients.orders.CreateOrder(request, timeout=1.5))
            # The first waits for the user, and the second for the first's claim of the request id.
            await observer.until_waiting(1)
            second = asyncio.ensure_future(clients.orders.CreateOrder(request))
            _, failures = await settled(first)
            assert [failure.code for failure in failures] == [grpc.StatusCode.DEADLINE_EXCEEDED]
            # Now the second waits for the user.
            await observer.until_waiting(1)
        order = (await second).order
        assert await observer.count("orders", "user_id = $1", UUID(user.id)) == 1
    assert await read(clients, order) == order


async def test_a_duplicate_that_runs_out_of_time_leaves_the_first_call_alone(
    clients: Clients, shared_database_url: str
) -> None:
    user = await clients.create_user()
    request = pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
    async with observing(shared_database_url) as observer:
        async with holding(shared_database_url, LOCK_USER, UUID(user.id)):
            first = asyncio.ensure_future(clients.orders.CreateOrder(request))
            await observer.until_waiting(1)
            _, failures = await settled(clients.orders.CreateOrder(request, timeout=0.5))
            assert [failure.code for failure in failures] == [grpc.StatusCode.DEADLINE_EXCEEDED]
        answer = await first
        assert await clients.orders.CreateOrder(request) == answer
        assert await observer.count("orders", "user_id = $1", UUID(user.id)) == 1


async def test_a_duplicate_of_a_call_that_is_refused_is_refused_too(clients: Clients, shared_database_url: str) -> None:
    user = await clients.create_user()
    request = pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
    async with observing(shared_database_url) as observer:
        statement = "UPDATE users SET state = 'INACTIVE' WHERE id = $1"
        async with holding(shared_database_url, statement, UUID(user.id)):
            calls = [asyncio.ensure_future(clients.orders.CreateOrder(request)) for _ in range(2)]
            await observer.until_waiting(2)
        _, failures = await settled(*calls)
        assert codes(failures) == [(grpc.StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE")] * 2
        assert await observer.count("request_ids", "request_id = $1", UUID(request.request_id)) == 0


async def test_one_request_id_with_two_concurrent_bodies_does_one_and_refuses_the_other(
    clients: Clients, shared_database_url: str
) -> None:
    user = await clients.create_user()
    request_id = str(uuid4())
    orders = [new_order(user.id, external_ref=reference) for reference in ("left", "right")]
    requests = [pb.CreateOrderRequest(order=order, request_id=request_id) for order in orders]
    calls = [partial(clients.orders.CreateOrder, request) for request in requests]
    answers, failures = await race(shared_database_url, LOCK_USER, user.id, *calls)
    assert len(answers) == 1
    assert codes(failures) == [(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")]


async def test_cancelled_calls_cost_no_connection(database_url: str) -> None:
    async with (
        running_server(database_url) as server,
        connect(server.port) as clients,
        observing(database_url) as observer,
    ):
        user = await clients.create_user()
        order = await clients.create_order(user.id)
        connections = await _open_whole_pool(clients, observer, database_url, order, server.settings.db_pool_size)
        request = pb.CreateOrderRequest(order=new_order(user.id))
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            with capture_logs() as logs:
                cancelled = [clients.orders.CreateOrder(request) for _ in range(25)]
                too_late = [clients.orders.CreateOrder(request, timeout=0.3) for _ in range(25)]
                await observer.until_waiting(MAX_TRANSACTIONS)
                for call in cancelled:
                    call.cancel()
                _, failures = await settled(*too_late)
                assert {failure.code for failure in failures} == {grpc.StatusCode.DEADLINE_EXCEEDED}
                await eventually(lambda: [line["event"] for line in logs].count("call") >= MAX_TRANSACTIONS)
        await observer.until_idle()
        # A cancelled call is not an internal error.
        assert [line for line in logs if line["log_level"] == "error"] == []
        assert await observer.backends() == connections
        # A cancelled call has written everything or nothing.
        orders = await observer.count("orders")
        assert await observer.count("events", "type = 'CREATED' AND aggregate_type = 'order'") == orders
        assert await observer.count("order_items") == 3 * orders
        answer = await clients.orders.CreateOrder(request)
        assert answer.order.status == ORDER_STATUS_PENDING
        assert await observer.backends() == connections


async def _open_whole_pool(clients: Clients, observer: Observer, url: str, order: Order, size: int) -> set[int]:
    async with holding(url, "LOCK TABLE orders"):
        request = pb.GetOrderRequest(order_number=order.order_number)
        calls = [asyncio.ensure_future(clients.orders.GetOrder(request)) for _ in range(size)]
        await observer.until_waiting(size)
    await asyncio.gather(*calls)
    return await observer.backends()


async def test_64_writers_get_orders_of_their_own(clients: Clients, shared_database_url: str) -> None:
    user_ids = [(await clients.create_user()).id for _ in range(4)]

    async def write(number: int) -> list[Order]:
        return [await clients.create_order(user_ids[number % 4]) for _ in range(3)]

    orders = [order for written in await asyncio.gather(*map(write, range(64))) for order in written]
    assert len({order.order_number for order in orders}) == 64 * 3
    async with observing(shared_database_url) as observer:
        assert await observer.count("orders", "user_id = ANY($1::uuid[])", user_ids) == 64 * 3
        of_these = "aggregate_id IN (SELECT id FROM orders WHERE user_id = ANY($1::uuid[]))"
        assert await observer.count("events", of_these, user_ids) == 64 * 3
