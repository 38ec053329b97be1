"""Several `commerce serve` processes on one port and one database: to callers they are one server."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from tests.support.clients import Clients, connect, new_order
from tests.support.processes import Process, serving
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

# Otherwise all channels of a process share their connections.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@asynccontextmanager
async def two_servers(database_url: str, **settings: Any) -> AsyncIterator[tuple[Process, Process]]:
    async with serving(database_url, reuse_port=True, **settings) as first:
        port = await first.port()
        async with serving(database_url, port, reuse_port=True, **settings) as second:
            yield first, second


def callers_of(process: Process) -> set[str]:
    return {line["x_request_id"] for line in process.logged("call") if "x_request_id" in line}


def server_that_answered(servers: Iterable[Process], caller: str) -> Process | None:
    return next((server for server in servers if caller in callers_of(server)), None)


@dataclass(frozen=True)
class Pair:
    """Callers of two servers, each on a connection to one of them."""

    one: Clients
    other: Clients


@pytest.fixture(scope="module")
async def pair(shared_database_url: str) -> AsyncIterator[Pair]:
    async with two_servers(shared_database_url, max_connection_age=0) as servers, AsyncExitStack() as connections:
        port = await servers[0].port()
        found: dict[Process, Clients] = {}
        # Linux chooses the listener by the client's port.
        for number in count():
            clients = await connections.enter_async_context(connect(port, own_connection=True))
            metadata = (("x-request-id", str(number)),)
            await clients.users.ListUsers(users_pb.ListUsersRequest(), metadata=metadata)
            answering = partial(server_that_answered, servers, str(number))
            found[await eventually(answering)] = clients
            if len(found) == len(servers):
                break
        one, other = found.values()
        yield Pair(one, other)


async def test_one_server_reads_the_writes_of_another(pair: Pair) -> None:
    user = await pair.one.create_user()
    order = await pair.other.create_order(user.id)
    confirmed = (await pair.one.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=order.id, etag=order.etag))).order
    assert (await pair.other.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order == confirmed


async def test_orders_of_both_servers_have_numbers_of_their_own(pair: Pair) -> None:
    user = await pair.one.create_user()
    # More than one block of order numbers.
    placed = await asyncio.gather(*(clients.create_order(user.id) for clients in (pair.one, pair.other) * 40))
    assert len({order.order_number for order in placed}) == 80


async def test_a_page_token_of_one_server_leads_on_at_another(pair: Pair) -> None:
    user = await pair.one.create_user()
    placed = [(await pair.one.create_order(user.id)).id for _ in range(5)]
    listed, token, turn = [], "", 0
    while token or not turn:
        clients = (pair.one, pair.other)[turn % 2]
        request = pb.ListOrdersRequest(user_id=user.id, page_size=2, page_token=token)
        response = await clients.orders.ListOrders(request)
        listed += [order.id for order in response.orders]
        token, turn = response.next_page_token, turn + 1
    assert turn == 3
    assert listed == placed[::-1]


async def test_a_request_id_is_one_call_whichever_servers_get_it(pair: Pair) -> None:
    user = await pair.one.create_user()
    request = pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
    responses = await asyncio.gather(*(clients.orders.CreateOrder(request) for clients in (pair.one, pair.other) * 4))
    assert len({response.SerializeToString(deterministic=True) for response in responses}) == 1
    listed = await pair.other.orders.ListOrders(pb.ListOrdersRequest(user_id=user.id))
    assert [order.id for order in listed.orders] == [responses[0].order.id]


async def test_a_watch_of_one_server_resumes_at_another_and_gets_the_events_of_both(pair: Pair) -> None:
    user = await pair.one.create_user()
    async with watch_orders(pair.one, now=True) as watch:
        await watch.checkpoint()
        placed = [(await clients.create_order(user.id)).id for clients in (pair.one, pair.other)]
        (first,) = await watch.events(1)
    async with watch_orders(pair.other, cursor=watch.cursor) as watch:
        (second,) = await watch.events(1)
    assert [first.order_id, second.order_id] == placed


async def test_a_server_that_drains_gets_no_new_connection_and_keeps_those_it_has(database_url: str) -> None:
    async with two_servers(database_url, max_connection_age=600) as (first, second), AsyncExitStack() as connections:
        port = await first.port()

        async def call(name: str) -> Clients:
            clients = await connections.enter_async_context(connect(port, own_connection=True))
            await clients.users.ListUsers(users_pb.ListUsersRequest(), metadata=(("x-request-id", name),))
            return clients

        before = {name: await call(name) for name in map(str, range(20))}
        await eventually(lambda: callers_of(first) | callers_of(second) == set(before))
        kept = callers_of(first)
        first.send(signal.SIGTERM)
        await first.until_logged("draining")
        new = {f"new-{number}" for number in range(20)}
        for name in new:
            await call(name)
        await eventually(lambda: callers_of(second) >= new)
        for name in kept:
            metadata = (("x-request-id", f"again-{name}"),)
            await before[name].users.ListUsers(users_pb.ListUsersRequest(), metadata=metadata)
        await eventually(lambda: callers_of(first) == kept | {f"again-{name}" for name in kept})
        assert kept


async def test_no_call_fails_when_one_server_of_a_port_drains(database_url: str) -> None:
    outcomes: Counter[str] = Counter()
    stopping = asyncio.Event()

    async def call(channel: grpc.aio.Channel, name: str, user_id: str) -> None:
        users, orders = UserServiceStub(channel), OrderServiceStub(channel)
        metadata = (("x-request-id", name),)
        while not stopping.is_set():
            try:
                await users.GetUser(users_pb.GetUserRequest(id=user_id), metadata=metadata)
                await orders.CreateOrder(pb.CreateOrderRequest(order=new_order(user_id)), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                outcomes[f"{error.code().name}: {error.details()}"] += 1
            else:
                outcomes["OK"] += 1

    def calls_more(process: Process) -> Callable[[], bool]:
        before = len(process.logged("call"))
        return lambda: len(process.logged("call")) > before

    async with two_servers(database_url, max_connection_age=0.5) as (first, second):
        port = await first.port()
        async with connect(port) as clients:
            user = await clients.create_user()
        async with AsyncExitStack() as channels:
            calling = []
            for number in range(8):
                channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OWN_CONNECTION)
                await channels.enter_async_context(channel)
                calling.append(asyncio.create_task(call(channel, str(number), user.id)))
            for server in (first, second):
                await eventually(calls_more(server))
            first.send(signal.SIGTERM)
            assert (await first.end()).status == 0
            await eventually(calls_more(second))
            stopping.set()
            await asyncio.gather(*calling)
    assert set(outcomes) == {"OK"}, outcomes
