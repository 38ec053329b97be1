"""Group commit on the fast path: concurrent orders and transitions, with and without conflicts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import orjson
import pytest
from commerce.orders.v1.order_pb2 import Order
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode

from service.db.tables import ORDER_NUMBER_BLOCK
from tests.support.clients import Clients, item, new_order
from tests.support.databases import Observer, observing
from tests.support.failures import fails, failure_of, settled
from tests.support.locks import CREATE_ORDER, holding, holding_request_id
from tests.support.methods import call, call_bytes
from tests.support.requests import euros, order_in, transition_request, user_in, user_with_credit
from tests.support.sent_statements import sent_statements
from tests.support.servers import OwnServer, own_server

CONFIRM_ORDER = CREATE_ORDER.replace("CreateOrder", "ConfirmOrder")
ROUNDS = 8


@pytest.fixture
async def observer(own: OwnServer) -> AsyncIterator[Observer]:
    async with observing(own.database_url) as observer:
        yield observer


def create(user_id: str, **fields: Any) -> pb.CreateOrderRequest:
    return pb.CreateOrderRequest(order=new_order(user_id, **fields), request_id=str(uuid4()))


def codes(failures: list[Any]) -> set[tuple[StatusCode, str]]:
    return {(failure.code, failure.reason) for failure in failures}


async def deactivate(clients: Clients, user_id: str) -> None:
    await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user_id))


async def delete(clients: Clients, user_id: str) -> None:
    await clients.users.DeleteUser(users_pb.DeleteUserRequest(id=user_id))


# Orders while their user changes


@pytest.mark.parametrize("end", [deactivate, delete])
async def test_no_order_comes_after_the_end_of_its_user(
    own: OwnServer, observer: Observer, end: Callable[[Clients, str], Awaitable[None]]
) -> None:
    for _ in range(ROUNDS):
        user_id = (await own.clients.create_user()).id
        placed: list[Order] = []

        async def place_until_refused(user_id: str = user_id, placed: list[Order] = placed) -> None:
            with fails(StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE"):
                while True:
                    placed.append(await own.clients.create_order(user_id))

        async def end_it(user_id: str = user_id, placed: list[Order] = placed) -> list[Order]:
            while len(placed) < 20:  # noqa: ASYNC110 - it waits for answers of other tasks
                await asyncio.sleep(0)
            await end(own.clients, user_id)
            with fails(StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE"):
                await own.clients.create_order(user_id)
            return placed

        await asyncio.gather(*(place_until_refused() for _ in range(8)), end_it())
        assert await observer.count("orders", "user_id = $1", UUID(user_id)) == len(placed)
        # Each order's event was written under the lock that the deactivation waited for.
        ended = "(SELECT max(position) FROM events WHERE aggregate_id = $1)"
        assert await observer.count("events", f"user_id = $1 AND position > {ended}", UUID(user_id)) == 0


@pytest.mark.parametrize("lock", ["FOR UPDATE", "FOR NO KEY UPDATE"])
async def test_an_order_waits_for_the_lock_of_its_user(own: OwnServer, observer: Observer, lock: str) -> None:
    user_id = (await own.clients.create_user()).id
    async with holding(own.database_url, f"SELECT FROM users WHERE id = $1 {lock}", UUID(user_id)):
        placing = asyncio.ensure_future(own.clients.create_order(user_id))
        await observer.until_waiting(1)
    assert (await placing).user_id == user_id


@pytest.mark.parametrize("lock", ["FOR SHARE", "FOR KEY SHARE"])
async def test_an_order_does_not_wait_for_a_shared_lock_of_its_user(own: OwnServer, lock: str) -> None:
    user_id = (await own.clients.create_user()).id
    # The server has order numbers in store.
    await own.clients.create_order(user_id)
    async with holding(own.database_url, f"SELECT FROM users WHERE id = $1 {lock}", UUID(user_id)):
        with sent_statements() as sent:
            await own.clients.create_order(user_id)
    assert len([statement for statement, _ in sent if "order_number_seq" not in statement]) == 1


async def test_orders_that_come_together_ask_together_for_their_numbers(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url) as own:
        user = await own.clients.create_user()

        async def place(count: int) -> list[Order]:
            return await asyncio.gather(*(own.clients.create_order(user.id) for _ in range(count)))

        with sent_statements() as sent:
            orders = await place(2 * ORDER_NUMBER_BLOCK)
        assert len({order.order_number for order in orders}) == len(orders)
        assert len([statement for statement, _ in sent if "order_number_seq" in statement]) == 2
        # If that fails, all of these calls fail, and the next calls ask again.
        await own.connection.execute("ALTER SEQUENCE order_number_seq RENAME TO away")
        with fails(StatusCode.INTERNAL, "INTERNAL"):
            await place(8)
        await own.connection.execute("ALTER SEQUENCE away RENAME TO order_number_seq")
        await place(1)


async def test_orders_of_many_items_do_not_make_a_statement_that_knows_no_bounds(own: OwnServer) -> None:
    user = await own.clients.create_user()
    items = [item(f"part {number}", 1, number) for number in range(1, 201)]
    with sent_statements() as sent:
        orders = await asyncio.gather(*(own.clients.create_order(user.id, items=items) for _ in range(12)))
    assert {len(order.items) for order in orders} == {len(items)}
    rows = [orjson.loads(value) for _, values in sent for value in values if str(value).startswith('[{"order_id')]
    # Some calls were committed together, but at most two statements ran.
    assert {len(row) // len(items) for row in rows} == {1, 2}


async def test_an_order_that_is_refused_costs_the_orders_beside_it_no_second_statement(own: OwnServer) -> None:
    good, bad = await own.clients.create_user(), await user_in(own.clients, "INACTIVE")
    users = [bad if number % 4 == 3 else good for number in range(16)]
    with sent_statements() as sent:
        orders, failures = await settled(*(own.clients.create_order(user.id) for user in users))
    assert (len(orders), codes(failures)) == (12, {(StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE")})
    items = [orjson.loads(value) for _, values in sent for value in values if str(value).startswith('[{"order_id')]
    groups = [{row["order_id"] for row in rows} for rows in items]
    assert any(len(group) > 1 for group in groups)
    # A statement that fails is repeated with each of its orders.
    assert sum(map(len, groups)) == len(set().union(*groups))


# Request ids


async def test_a_repeated_call_in_a_group_leaves_no_event(own: OwnServer, observer: Observer) -> None:
    user = await own.clients.create_user()
    first = create(user.id)
    placed = (await own.clients.orders.CreateOrder(first)).order
    requests = [first if number % 4 == 3 else create(user.id) for number in range(32)]
    answers = await asyncio.gather(*map(own.clients.orders.CreateOrder, requests))
    assert sum(answer.order == placed for answer in answers) == 8
    nobodys = "aggregate_type = 'order' AND NOT EXISTS (SELECT FROM orders WHERE orders.id = aggregate_id)"
    assert await observer.count("events", nobodys) == 0


async def test_a_request_id_is_claimed_for_its_method_only(own: OwnServer) -> None:
    clients, used = own.clients, str(uuid4())
    done, mine, *others = [await order_in(clients, "PENDING") for _ in range(14)]
    confirmed = await order_in(clients, "CONFIRMED")
    await clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=done.id, request_id=used))
    # The first of the others are on their way when these two come, which then share a statement.
    calls = [clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id)) for order in others]
    reused = clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=mine.id, request_id=used))
    other_method = clients.orders.ProcessOrder(pb.ProcessOrderRequest(id=confirmed.id, request_id=used))
    _, failures = await settled(*calls, reused, other_method)
    assert codes(failures) == {(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")}
    assert (await clients.orders.GetOrder(pb.GetOrderRequest(id=mine.id))).order == mine


async def test_32_calls_with_one_request_id_place_one_order_and_get_the_same_bytes(
    own: OwnServer, observer: Observer
) -> None:
    for _ in range(ROUNDS):
        user_id = (await own.clients.create_user()).id
        body = create(user_id, metadata={f"key {number}": "value" for number in range(20)}).SerializeToString()
        answers = await asyncio.gather(*(call_bytes(own.clients.channel, "CreateOrder", body) for _ in range(32)))
        assert len(set(answers)) == 1
        assert await observer.count("orders", "user_id = $1", UUID(user_id)) == 1
        assert await observer.count("events", "user_id = $1 AND aggregate_type = 'order'", UUID(user_id)) == 1


async def test_32_calls_with_one_request_id_confirm_once_and_get_the_same_bytes(
    own: OwnServer, observer: Observer
) -> None:
    for _ in range(ROUNDS):
        order = await order_in(own.clients, "PENDING")
        body = pb.ConfirmOrderRequest(id=order.id, request_id=str(uuid4())).SerializeToString()
        answers = await asyncio.gather(*(call_bytes(own.clients.channel, "ConfirmOrder", body) for _ in range(32)))
        assert len(set(answers)) == 1
        assert pb.ConfirmOrderResponse.FromString(answers[0]).order.etag == "v2"
        assert await observer.count("events", "aggregate_id = $1", UUID(order.id)) == 2


async def test_a_request_id_with_another_body_is_refused_and_changes_nothing(own: OwnServer) -> None:
    request = create((await own.clients.create_user()).id)
    await own.clients.orders.CreateOrder(request)
    before = await own.versions()
    request.order.items[0].quantity += 1
    with fails(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"):
        await own.clients.orders.CreateOrder(request)
    # Also if the other body is not a valid order.
    request.order.items[0].unit_price.currency_code = "USD"
    with fails(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"):
        await own.clients.orders.CreateOrder(request)
    assert await own.versions() == before


SOURCE_STATUS = {
    "Confirm": "PENDING",
    "Process": "CONFIRMED",
    "Ship": "PROCESSING",
    "Deliver": "SHIPPED",
    "Cancel": "PENDING",
}


async def _nothing(_clients: Clients, _order: Order) -> None:
    """Change nothing."""


async def _tag(clients: Clients, order: Order) -> None:
    await clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=["since"]))


@pytest.mark.parametrize("since", [_nothing, _tag], ids=["as it was", "changed since"])
@pytest.mark.parametrize("transition", SOURCE_STATUS)
async def test_a_repeated_transition_gets_the_same_bytes_again(
    own: OwnServer, transition: str, since: Callable[[Clients, Order], Awaitable[None]]
) -> None:
    order = await order_in(own.clients, SOURCE_STATUS[transition])
    request = transition_request(transition, order.id, request_id=str(uuid4()), etag=order.etag).SerializeToString()
    first = await call_bytes(own.clients.channel, f"{transition}Order", request)
    await since(own.clients, order)
    before = await own.versions()
    assert await call_bytes(own.clients.channel, f"{transition}Order", request) == first
    assert await own.versions() == before


async def test_a_refused_transition_leaves_its_request_id_free(own: OwnServer) -> None:
    order = await order_in(own.clients, "PENDING")
    request = transition_request("Ship", order.id, request_id=str(uuid4()))
    with fails(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"):
        await own.clients.orders.ShipOrder(request)
    for transition in ("Confirm", "Process"):
        await call(own.clients.channel, f"{transition}Order", transition_request(transition, order.id))
    assert (await own.clients.orders.ShipOrder(request)).order.etag == "v4"


# External references


async def test_a_used_reference_is_refused_and_leaves_nothing_of_the_order(own: OwnServer) -> None:
    user_id = (await own.clients.create_user()).id
    await own.clients.create_order(user_id, external_ref="cart-1")
    request = create(user_id, external_ref="cart-1")
    before = await own.versions()
    for _ in range(2):
        with fails(StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS") as failure:
            await own.clients.orders.CreateOrder(request)
        assert failure.metadata == {"field": "external_ref"}
    assert await own.versions() == before
    # Its request id is not claimed.
    request.order.external_ref = "cart-2"
    answer = await own.clients.orders.CreateOrder(request)
    assert await own.clients.orders.CreateOrder(request) == answer


async def test_of_16_orders_with_one_reference_one_is_placed(own: OwnServer, observer: Observer) -> None:
    for _ in range(ROUNDS):
        user_id = (await own.clients.create_user()).id
        requests = [create(user_id, external_ref="cart") for _ in range(16)]
        placed, failures = await settled(*map(own.clients.orders.CreateOrder, requests))
        assert len(placed) == 1
        assert codes(failures) == {(StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS")}
        assert await observer.count("orders", "user_id = $1", UUID(user_id)) == 1
        used = [UUID(request.request_id) for request in requests]
        assert await observer.count("request_ids", "request_id = ANY($1::uuid[])", used) == 1


# Transitions


async def test_of_many_transitions_each_happens_once_and_the_timeline_has_no_gap(
    own: OwnServer, observer: Observer
) -> None:
    for _ in range(ROUNDS):
        order = await order_in(own.clients, "PENDING")
        transitions = ["Confirm", "Cancel", "Process"] * 8
        calls = [
            call(own.clients.channel, f"{transition}Order", transition_request(transition, order.id))
            for transition in transitions
        ]
        done, failures = await settled(*calls)
        assert codes(failures) == {(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")}
        # Exactly one call has changed each version.
        assert sorted(answer.order.etag for answer in done) == [f"v{2 + number}" for number in range(len(done))]
        events = await observer.connection.fetch(
            "SELECT type FROM events WHERE aggregate_id = $1 ORDER BY position", UUID(order.id)
        )
        types = [row["type"] for row in events]
        assert types == ["CREATED", *["CONFIRMED", "PROCESSING"][: len(done) - 1], "CANCELLED"]
        now = (await own.clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order
        assert now.etag == f"v{len(types)}"


async def test_transitions_among_other_changes_lose_none_of_them(own: OwnServer, observer: Observer) -> None:
    for _ in range(ROUNDS):
        order = await order_in(own.clients, "PENDING")
        other = (await own.clients.create_user()).id
        tags = [f"t{number}" for number in range(6)]
        done, failures = await settled(
            call(own.clients.channel, "ConfirmOrder", transition_request("Confirm", order.id)),
            *(own.clients.orders.AddOrderTags(pb.AddOrderTagsRequest(id=order.id, tags=[tag])) for tag in tags),
            own.clients.orders.TransferOrders(pb.TransferOrdersRequest(from_user_id=order.user_id, to_user_id=other)),
        )
        assert not failures
        assert len(done) == len(tags) + 2
        now = (await own.clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order
        assert (now.etag, now.user_id, list(now.tags)) == (f"v{1 + len(done)}", other, tags)
        # Each answer has the order as it was at that version.
        answers = [answer.order for answer in done if hasattr(answer, "order")]
        assert len({answer.etag for answer in answers}) == len(answers)
        for answer in answers:
            assert len(answer.tags) <= int(answer.etag[1:]) - 1
        assert await observer.count("events", "aggregate_id = $1", UUID(order.id)) == 1 + len(done)


@pytest.mark.parametrize(("lock", "waits"), [("FOR UPDATE", True), ("FOR SHARE", True), ("FOR KEY SHARE", False)])
async def test_a_transition_waits_for_the_lock_of_its_order(
    own: OwnServer, observer: Observer, lock: str, *, waits: bool
) -> None:
    order = await order_in(own.clients, "PENDING")
    async with holding(own.database_url, f"SELECT FROM orders WHERE id = $1 {lock}", UUID(order.id)):
        confirming = asyncio.ensure_future(own.clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id)))
        if waits:
            await observer.until_waiting(1)
        else:
            await confirming
    assert (await confirming).order.etag == "v2"


async def test_orders_that_change_together_share_a_statement_but_not_a_conflict_of_one(
    own: OwnServer,
) -> None:
    user = await own.clients.create_user()
    orders = [await own.clients.create_order(user.id) for _ in range(16)]
    requests = [pb.ConfirmOrderRequest(id=order.id, request_id=str(uuid4())) for order in orders]
    # A statement waits for the lock for at most 50 ms.
    async with holding_request_id(own.database_url, requests[7].request_id, CONFIRM_ORDER):
        with sent_statements() as sent:
            calls = [asyncio.ensure_future(own.clients.orders.ConfirmOrder(request)) for request in requests]
            await asyncio.wait(calls[:7] + calls[8:])
            assert not calls[7].done()
    answers = await asyncio.gather(*calls)
    assert [(answer.order.id, answer.order.etag) for answer in answers] == [(order.id, "v2") for order in orders]
    rows = [value for _, values in sent for value in values if str(value).startswith("[{")]
    assert max(len(orjson.loads(value)) for value in rows) > 1
    # Each write happened once.
    assert [await own.clients.orders.ConfirmOrder(request) for request in requests] == answers
    events = [await events_of(own, order) for order in orders]
    assert events == [["CREATED", "CONFIRMED"]] * len(orders)


async def events_of(own: OwnServer, order: Order) -> list[str]:
    query = "SELECT type FROM events WHERE aggregate_id = $1 ORDER BY position"
    return [row["type"] for row in await own.connection.fetch(query, UUID(order.id))]


# Time


async def test_a_request_id_that_another_call_holds_takes_no_more_than_the_time_there_is(
    postgres_url: str, template_url: str
) -> None:
    async with own_server(postgres_url, template_url, default_deadline=0.5) as own:
        order = await order_in(own.clients, "PENDING")
        placing = create(order.user_id)
        confirming = pb.ConfirmOrderRequest(id=order.id, request_id=str(uuid4()))
        before = await own.versions()
        async with (
            asyncio.timeout(30),
            holding_request_id(own.database_url, placing.request_id),
            holding_request_id(own.database_url, confirming.request_id, CONFIRM_ORDER),
        ):
            calls: list[tuple[Any, Any]] = [
                (own.clients.orders.CreateOrder, placing),
                (own.clients.orders.ConfirmOrder, confirming),
            ]
            for call, request in calls:
                # The server's default deadline, reported with a reason.
                with fails(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                    await call(request)
                # The caller's deadline: its gRPC library or the server reports it, whichever is first.
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(request, timeout=0.2)
                assert raised.value.code() == StatusCode.DEADLINE_EXCEEDED
            await Observer(own.connection).until_idle()
        assert await own.versions() == before
        assert (await own.clients.orders.ConfirmOrder(confirming)).order.etag == "v2"


@pytest.mark.parametrize("lock", ["LOCK TABLE orders IN ACCESS EXCLUSIVE MODE", "LOCK TABLE order_items"])
async def test_a_transition_that_cannot_read_its_order_has_written_nothing(
    postgres_url: str, template_url: str, lock: str
) -> None:
    async with own_server(postgres_url, template_url, default_deadline=0.5) as own:
        order = await order_in(own.clients, "PENDING")
        before = await own.versions()
        async with asyncio.timeout(30), holding(own.database_url, lock):
            with fails(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                await own.clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id))
        await Observer(own.connection).until_idle()
        assert await own.versions() == before


# Conflicts and failures


async def _unknown_user(_clients: Clients) -> str:
    return str(uuid4())


async def _inactive_user(clients: Clients) -> str:
    return (await user_in(clients, "INACTIVE")).id


async def _active_user(clients: Clients) -> str:
    return (await clients.create_user()).id


REFUSED: dict[str, tuple[Callable[[Clients], Awaitable[str]], dict[str, Any], str]] = {
    "unknown user": (_unknown_user, {}, "USER_NOT_FOUND"),
    "inactive user": (_inactive_user, {}, "USER_NOT_ACTIVE"),
    "mixed currencies": (
        _active_user,
        {"items": [item("a", 1, 1), item("b", 1, 1, currency="USD")]},
        "MIXED_CURRENCIES",
    ),
    # The first of two.
    "unknown user, unknown currency": (
        _unknown_user,
        {"items": [item("a", 1, 1, currency="XXX")]},
        "UNKNOWN_CURRENCY",
    ),
    "unknown user, mixed currencies": (
        _unknown_user,
        {"items": [item("a", 1, 1), item("b", 1, 1, currency="USD")]},
        "USER_NOT_FOUND",
    ),
}


@pytest.mark.parametrize("dry", [False, True], ids=["", "validate_only"])
@pytest.mark.parametrize("with_request_id", [False, True], ids=["", "with_request_id"])
@pytest.mark.parametrize(("user", "fields", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_an_order_is_refused_for_the_same_reason_on_both_paths(
    own: OwnServer,
    user: Callable[[Clients], Awaitable[str]],
    fields: dict[str, Any],
    reason: str,
    *,
    with_request_id: bool,
    dry: bool,
) -> None:
    request = create(await user(own.clients), **fields)
    request.validate_only = dry
    if not with_request_id:
        request.request_id = ""
    before = await own.versions()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await own.clients.orders.CreateOrder(request)
    assert failure_of(raised.value).reason == reason
    assert await own.versions() == before


@pytest.mark.parametrize("dry", [False, True], ids=["", "validate_only"])
async def test_one_connection_is_enough_to_place_an_order(postgres_url: str, template_url: str, *, dry: bool) -> None:
    async with own_server(postgres_url, template_url, db_pool_size=1, db_pool_timeout=1) as own:
        user_id = await user_with_credit(own.clients)
        # Its order number takes another statement.
        request = pb.CreateOrderRequest(order=new_order(user_id, items=[item("a", 1, 1)]), validate_only=dry)
        assert (await own.clients.orders.CreateOrder(request)).order.total_amount == euros(1)


async def test_more_orders_than_connections_are_placed(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, db_pool_size=2) as own:
        user_id = await user_with_credit(own.clients)
        plain = [partial(own.clients.create_order, user_id)] * 40
        request = pb.CreateOrderRequest(order=new_order(user_id, items=[item("a", 1, 1)]), pay_with_credit=True)
        with_credit = [partial(own.clients.orders.CreateOrder, request)] * 40
        calls = [place() for pair in zip(plain, with_credit, strict=True) for place in pair]
        placed, failures = await settled(*calls)
        assert not failures
        assert len(placed) == 80
        assert (await own.rows())["orders"] == 80


async def test_orders_that_get_no_connection_fail_as_overloaded(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, db_pool_size=1, db_pool_timeout=0.2) as own:
        user = await own.clients.create_user()
        await own.clients.create_order(user.id)
        async with (
            observing(own.database_url) as observer,
            holding(own.database_url, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user.id)),
        ):
            waiting = asyncio.ensure_future(own.clients.create_order(user.id))
            await observer.until_waiting(1)
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                await own.clients.create_order(user.id)
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                await own.clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        assert RetryInfo in failure.details
        await waiting
        assert (await own.rows())["orders"] == 2


async def test_orders_that_wait_together_for_a_connection_fail_together(postgres_url: str, template_url: str) -> None:
    async with own_server(postgres_url, template_url, db_pool_size=2, db_pool_timeout=0.5) as own:
        user = await own.clients.create_user()
        await own.clients.create_order(user.id)
        async with observing(own.database_url) as observer, holding(own.database_url, "LOCK TABLE users"):
            request = users_pb.GetUserRequest(username=user.username)
            reads = [asyncio.ensure_future(own.clients.users.GetUser(request)) for _ in range(2)]
            await observer.until_waiting(2)
            # One by one, the orders of a statement would wait for more than fifteen seconds.
            async with asyncio.timeout(8):
                placed, failures = await settled(*(own.clients.create_order(user.id) for _ in range(64)))
            assert not placed
            assert codes(failures) == {(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")}
        await asyncio.gather(*reads)
        assert (await own.rows())["orders"] == 1


# Refuses one of the orders that are written together.
REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'refused' USING ERRCODE = '{sqlstate}';
END
$$;
CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.external_ref = 'refused') EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize(
    ("sqlstate", "reason", "shared"),
    [("22000", "INTERNAL", False), ("40001", "CONTENTION", False), ("57014", "DEADLINE_EXCEEDED", True)],
)
async def test_only_a_failure_that_can_belong_to_one_order_is_taken_apart(
    postgres_url: str, template_url: str, sqlstate: str, reason: str, *, shared: bool
) -> None:
    # With so few connections, no statement runs in place of one that is stuck.
    async with own_server(postgres_url, template_url, db_pool_size=4) as own:
        user = await own.clients.create_user()
        await own.clients.create_order(user.id)
        await own.connection.execute(REFUSE.format(sqlstate=sqlstate))
        async with (
            observing(own.database_url) as observer,
            holding(own.database_url, "LOCK TABLE orders IN EXCLUSIVE MODE"),
        ):
            # The statements of these two wait, and the orders that come meanwhile share the next one.
            first = []
            for count in (1, 2):
                first.append(asyncio.ensure_future(own.clients.create_order(user.id)))
                await observer.until_waiting(count)
            references = ["refused", *(f"fine {number}" for number in range(5))]
            together = [
                asyncio.ensure_future(own.clients.create_order(user.id, external_ref=reference))
                for reference in references
            ]
            await own.clients.orders.ListTags(pb.ListTagsRequest())
        await asyncio.gather(*first)
        placed, failures = await settled(*together)
        assert {failure.reason for failure in failures} == {reason}
        assert len(placed) == (0 if shared else 5)
