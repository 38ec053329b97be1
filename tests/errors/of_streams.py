"""Watches and exports that end: the examples of docs/errors/streams.md."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from grpc_health.v1.health_pb2_grpc import HealthStub

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.retention import delete_expired_events
from tests.errors.world import World, example
from tests.support.clients import Clients, connect
from tests.support.large_rows import insert_users
from tests.support.servers import running_server
from tests.support.waiting import eventually
from tests.support.watching import Stream, insert_events, watch_orders

EXPORTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'commerce export' AND xact_start IS NOT NULL
"""
LARGE = f'[{{"field": "reason", "old_value": "", "new_value": "{"x" * 10_000}"}}]'


@asynccontextmanager
async def buffering_little(port: int) -> AsyncIterator[Clients]:
    """Open a channel of its own that reads little ahead of its caller."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65_535),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Clients(channel, UserServiceStub(channel), OrderServiceStub(channel), HealthStub(channel))


@example("CURSOR_EXPIRED")
async def a_cursor_before_events_that_were_deleted(world: World) -> None:
    async with watch_orders(world.own.clients, now=True) as stream:
        cursor = await stream.checkpoint()
    await insert_events(world.own.connection)
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=world.own.database_url), pool_size=1)
    try:
        await delete_expired_events(engine, timedelta(0))
    finally:
        await engine.dispose()
    async with watch_orders(world.own.clients, cursor=cursor) as stream:
        await stream.next()


@example("SLOW_CONSUMER")
async def a_watcher_that_stops_reading(world: World) -> None:
    settings = {"watch_queue_size": 5, "slow_consumer_timeout": 0.5}
    async with (
        running_server(world.own.database_url, **settings) as server,
        connect(server.port) as clients,
        buffering_little(server.port) as others,
        watch_orders(clients, now=True) as reading,
    ):
        stalled = Stream(others.orders.WatchOrders(orders_pb.WatchOrdersRequest(now=True)))
        await stalled.checkpoint()
        await reading.checkpoint()
        # More than flow control allows unread, and then more than the queue holds.
        for count, changes in ((300, LARGE), (20, "[]")):
            await insert_events(world.own.connection, count, changes=changes)
            await reading.events(count)
        await asyncio.sleep(settings["slow_consumer_timeout"])
        await stalled.events(320)


@example("SERVER_DRAINING")
async def a_server_that_stops(world: World) -> None:
    async with (
        running_server(world.own.database_url) as server,
        connect(server.port) as clients,
        watch_orders(clients, now=True) as stream,
    ):
        await stream.checkpoint()
        stopping = asyncio.create_task(server.stop(grace=60))
        try:
            await stream.next()
        finally:
            await stopping


@example("EXPORT_STALLED")
async def an_export_that_is_not_read(world: World) -> None:
    await insert_users(world.own.database_url, 5000)
    async with (
        running_server(world.own.database_url, export_stall_timeout=0.3) as server,
        buffering_little(server.port) as clients,
    ):
        export = clients.users.ExportUsers(users_pb.ExportUsersRequest())
        assert (await anext(aiter(export))).users

        async def ended() -> bool:
            return not await world.own.connection.fetchval(EXPORTS)

        await eventually(ended)
        async for _ in export:
            pass
