"""Watches give the events of each user and order in the order of the commits, whichever transaction began first."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import OrderEvent, OrderEventType
from commerce.users.v1.user_pb2 import User

from tests.support.clients import Clients
from tests.support.databases import observing
from tests.support.locks import holding
from tests.support.servers import OwnServer
from tests.support.watching import ids, watch_orders, watch_users

Call = Callable[[], Awaitable[object]]


def types(events: Iterable[OrderEvent]) -> list[str]:
    return [OrderEventType.Name(event.type).removeprefix("ORDER_EVENT_TYPE_") for event in events]


async def timeline(clients: Clients, order_id: str) -> list[str]:
    """Return the ids of the events of an order, as ListOrderEvents has them."""
    request = orders_pb.ListOrderEventsRequest(order_id=order_id, page_size=100)
    return ids(list((await clients.orders.ListOrderEvents(request)).events))


async def test_a_transfer_comes_after_the_confirmation_that_it_let_pass(own: OwnServer) -> None:
    clients = own.clients
    giver, receiver = [(await clients.create_user()).id for _ in range(2)]
    order = await clients.create_order(giver)
    request = orders_pb.TransferOrdersRequest(from_user_id=giver, to_user_id=receiver, request_id=str(uuid4()))
    async with observing(own.database_url) as observer:
        async with holding(own.database_url, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(receiver)):
            # It has claimed its request id, and so has a transaction id, and waits for the receiver.
            transfer = asyncio.ensure_future(clients.orders.TransferOrders(request))
            await observer.until_waiting(1)
            await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
        await transfer
    async with watch_orders(clients, earliest=True, user_ids=[giver, receiver]) as stream:
        events = await stream.events(3)
    assert types(events) == ["CREATED", "CONFIRMED", "TRANSFERRED"]
    assert events[-1].user_id == receiver
    assert ids(events) == await timeline(clients, order.id)


async def test_a_watch_gives_a_random_history_in_the_order_of_its_commits(own: OwnServer) -> None:
    clients, chance = own.clients, random.Random(9)
    users = [(await clients.create_user()).id for _ in range(4)]
    orders = [(await clients.create_order(user)).id for user in users for _ in range(3)]
    async with watch_orders(clients, earliest=True) as stream_of_orders, watch_users(clients, earliest=True) as stream:
        history = [
            *(_add_tag(clients, order) for order in orders for _ in range(12)),
            *(_write_note(clients, order, users[0]) for order in orders for _ in range(4)),
            *(_confirm(clients, order) for order in orders),
            *(_transfer(clients, chance.sample(users, 2)) for _ in range(12)),
            *(_rename(clients, user) for user in users for _ in range(12)),
        ]
        chance.shuffle(history)
        async with asyncio.TaskGroup() as group:
            for first in range(12):
                group.create_task(_make(history[first::12]))
        # While its events get their positions, the row of a user or an order is locked: they follow the commits.
        query = "SELECT aggregate_id, id FROM events WHERE aggregate_type = $1 ORDER BY position"
        committed = {kind: await own.connection.fetch(query, kind) for kind in ("user", "order")}
        of_users = await stream.events(len(committed["user"]))
        of_orders = await stream_of_orders.events(len(committed["order"]))
    assert _by_aggregate((event.user_id, event.id) for event in of_users) == _by_aggregate(committed["user"])
    assert _by_aggregate((event.order_id, event.id) for event in of_orders) == _by_aggregate(committed["order"])
    for order_id in orders:
        assert await timeline(clients, order_id) == _by_aggregate(committed["order"])[order_id]


def _by_aggregate(events: Iterable[Iterable[object]]) -> dict[str, list[str]]:
    """Return the ids of the events of each user or order, in the given order."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for aggregate_id, event_id in events:
        found[str(aggregate_id)].append(str(event_id))
    return dict(found)


async def _make(calls: Sequence[Call]) -> None:
    for call in calls:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            # Calls that meet in the tests' database may be told to try again.
            assert error.code() is grpc.StatusCode.ABORTED, error  # noqa: PT017 - others do not fail


def _add_tag(clients: Clients, order_id: str) -> Call:
    tag, request_id = f"tag-{uuid4().hex[:12]}", str(uuid4())
    request = orders_pb.AddOrderTagsRequest(id=order_id, tags=[tag], request_id=request_id)
    return lambda: clients.orders.AddOrderTags(request)


def _write_note(clients: Clients, order_id: str, author_id: str) -> Call:
    note = OrderNote(order_id=order_id, author_id=author_id, body="fragile")
    request = orders_pb.CreateOrderNoteRequest(note=note, request_id=str(uuid4()))
    return lambda: clients.orders.CreateOrderNote(request)


def _confirm(clients: Clients, order_id: str) -> Call:
    return lambda: clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))


def _transfer(clients: Clients, users: Sequence[str]) -> Call:
    giver, receiver = users
    request = orders_pb.TransferOrdersRequest(from_user_id=giver, to_user_id=receiver, request_id=str(uuid4()))
    return lambda: clients.orders.TransferOrders(request)


def _rename(clients: Clients, user_id: str) -> Call:
    user = User(id=user_id, full_name=f"Ada {uuid4().hex[:8]}")
    request = users_pb.UpdateUserRequest(user=user, request_id=str(uuid4()))
    return lambda: clients.users.UpdateUser(request)
