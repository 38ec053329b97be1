"""Servers that are killed, and callers that retry with the same request id."""

import asyncio
import signal
from collections import Counter
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub

from tests.support.clients import connect, new_order
from tests.support.databases import observing
from tests.support.locks import COMMIT_WAITS, HOLD_COMMITS, holding
from tests.support.processes import Process, serving
from tests.support.waiting import eventually

# Callers reconnect more often than by default, which waits up to two minutes.
IMPATIENT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


async def new_user_id(port: int) -> str:
    async with connect(port) as clients:
        return (await clients.create_user()).id


async def crash(process: Process) -> None:
    process.send(signal.SIGKILL)
    assert (await process.end()).status == -signal.SIGKILL


async def test_a_call_whose_server_died_after_the_commit_gets_the_first_response(database_url: str) -> None:
    async with (
        observing(database_url) as observer,
        serving(database_url) as first,
        connect(await first.port()) as clients,
    ):
        user = await clients.create_user()
        request = pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
        await observer.connection.execute(COMMIT_WAITS)
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.ensure_future(clients.orders.CreateOrder(request))
            await observer.until_waiting(1)
            # The stopped server can send no answer; PostgreSQL commits all the same.
            first.send(signal.SIGSTOP)
        await eventually(lambda: observer.count("orders"))
        assert not call.done()
        await crash(first)
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await call
        assert lost.value.code() == grpc.StatusCode.UNAVAILABLE

        stored = "SELECT response FROM request_ids WHERE request_id = $1"
        response = await observer.connection.fetchval(stored, UUID(request.request_id))
        async with serving(database_url) as second, connect(await second.port()) as others:
            answer = await others.orders.CreateOrder(request)
            found = await others.orders.GetOrder(pb.GetOrderRequest(id=answer.order.id))
        assert answer.SerializeToString() == response
        assert found.order == answer.order
        assert await observer.count("orders") == 1


async def test_a_call_whose_server_died_before_the_commit_is_done_once_by_the_next(database_url: str) -> None:
    async with (
        observing(database_url) as observer,
        serving(database_url) as first,
        connect(await first.port()) as clients,
    ):
        user = await clients.create_user()
        request = pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
        async with holding(database_url, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user.id)):
            call = asyncio.ensure_future(clients.orders.CreateOrder(request))
            await observer.until_waiting(1)
            await crash(first)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        async with serving(database_url) as second, connect(await second.port()) as others:
            answer = await others.orders.CreateOrder(request)
        assert await observer.count("orders", "id = $1", UUID(answer.order.id)) == await observer.count("orders") == 1


async def test_no_order_is_lost_or_created_twice_in_a_series_of_crashes(database_url: str) -> None:
    acknowledged: dict[str, str] = {}
    repeated: Counter[str] = Counter()
    stop = asyncio.Event()

    async def place_orders(channel: grpc.aio.Channel, user_id: str) -> None:
        orders = OrderServiceStub(channel)
        while not stop.is_set():
            request = pb.CreateOrderRequest(order=new_order(user_id), request_id=str(uuid4()))
            while request.request_id not in acknowledged:
                try:
                    answer = await orders.CreateOrder(request, timeout=10, wait_for_ready=True)
                except grpc.aio.AioRpcError as error:
                    repeated[error.code().name] += 1
                else:
                    acknowledged[request.request_id] = answer.order.id

    async def orders_more(count: int) -> None:
        goal = len(acknowledged) + count
        await eventually(lambda: len(acknowledged) >= goal)

    async with serving(database_url) as process:
        port = await process.port()
        user_id = await new_user_id(port)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=IMPATIENT)
        callers = [asyncio.create_task(place_orders(channel, user_id)) for _ in range(8)]
        await orders_more(20)
        await crash(process)
    for _ in range(2):
        async with serving(database_url, port) as process:
            await orders_more(20)
            await crash(process)
    async with serving(database_url, port):
        await orders_more(20)
        stop.set()
        await asyncio.gather(*callers)
    await channel.close()

    assert repeated
    async with observing(database_url) as observer:
        rows = await observer.connection.fetch("SELECT id::text FROM orders")
        assert sorted(row["id"] for row in rows) == sorted(acknowledged.values())
        assert await observer.count("events", "type = 'CREATED' AND aggregate_type = 'order'") == len(rows)
        assert await observer.count("order_items") == 3 * len(rows)
