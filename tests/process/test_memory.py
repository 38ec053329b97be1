"""The memory of a server while clients send much or read nothing."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.clients import connect
from tests.support.databases import observing
from tests.support.failures import settled
from tests.support.locks import holding
from tests.support.memory import resident_megabytes
from tests.support.methods import call_bytes
from tests.support.processes import COMMAND, serving
from tests.support.waiting import eventually
from tests.support.watching import insert_events

# An unknown field of a request, of almost the maximum size of a request.
UNKNOWN = b"\xc2\xa9\x07\x80\x80\xff\x01" + b"x" * 0x3FC000


async def test_large_requests_in_flight_take_little_memory_and_health_is_answered(database_url: str) -> None:
    async with (
        # No call reaches its deadline on a slow machine.
        serving(database_url, program=COMMAND, default_deadline=600) as process,
        connect(await process.port(), own_connection=True) as clients,
        connect(await process.port(), own_connection=True) as others,
        observing(database_url) as observer,
    ):
        user = await clients.create_user()
        before = resident_megabytes(process.pid)
        request = users_pb.DeactivateUserRequest(id=user.id).SerializeToString() + UNKNOWN
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            calls = asyncio.gather(
                *(settled(call_bytes(clients.channel, "DeactivateUser", request)) for _ in range(90))
            )
            # Soon there are several, so it could miss the moment when there is exactly one.
            await eventually(lambda: observer.backends(waiting=True))
            await eventually(lambda: len(process.logged("call")) >= 60, 240)
            for _ in range(5):
                assert (await others.health.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
                await others.users.GetUser(users_pb.GetUserRequest(id=user.id))
            # Without a limit 870: the bytes and the message of each request.
            assert resident_megabytes(process.pid) - before < 500
        outcomes = await calls
        refused = [failure for _, failures in outcomes for failure in failures if failure.reason == "OVERLOADED"]
        assert len(refused) >= 60
        assert sum(bool(answers) for answers, _ in outcomes) == 1
        # Nothing is counted any more.
        assert await call_bytes(clients.channel, "GetUser", users_pb.GetUserRequest(id=user.id).SerializeToString())


async def test_watches_that_nobody_reads_take_little_memory(database_url: str, connection: asyncpg.Connection) -> None:
    large = f'[{{"field": "reason", "old_value": "", "new_value": "{"x" * 5_000}"}}]'
    await insert_events(connection, 600, changes=large)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(serving(database_url, program=COMMAND))
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 65_535),
        ]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{await process.port()}", options=options)
        await stack.enter_async_context(channel)
        watch: Any = channel.unary_stream("/commerce.orders.v1.OrderService/WatchOrders")
        start = orders_pb.WatchOrdersRequest(earliest=True).SerializeToString()

        async def unread() -> Any:
            call = watch(start)
            stack.callback(call.cancel)
            assert await call.read()
            return call

        calls = [await unread()]
        before = resident_megabytes(process.pid)
        calls += await asyncio.gather(*(unread() for _ in range(100)))
        # All have read their pages. Without a limit 350.
        assert resident_megabytes(process.pid) - before < 150
        assert not any(call.done() for call in calls)
