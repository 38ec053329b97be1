"""Reads that can take long: their share of connections, their time limit, and their end when nobody waits."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from service.application.ports.errors import DeadlineExceeded
from service.db.connections.cancelling import fetch_until
from tests.support.clients import Clients
from tests.support.databases import Observer, driver_connection
from tests.support.failures import fails, settled
from tests.support.locks import holding
from tests.support.proxies import Proxy, listening
from tests.support.servers import serving_clients
from tests.support.waiting import eventually

Call = Callable[..., Awaitable[Any]]

# By kind, calls of it that wait for a lock on the tables.
LOCK = "LOCK TABLE users, orders, order_notes, tags"


def search_notes(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.orders.SearchOrderNotes(pb.SearchOrderNotesRequest(query="fragile"), **options)


def search_users(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.users.SearchUsers(users_pb.SearchUsersRequest(query="ada"), **options)


def statistics(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.orders.GetOrderStatistics(pb.GetOrderStatisticsRequest(), **options)


def count_users(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.users.ListUsers(users_pb.ListUsersRequest(include_total_size=True), **options)


def count_orders(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.orders.ListOrders(pb.ListOrdersRequest(include_total_size=True), **options)


def count_notes(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.orders.ListOrderNotes(
        pb.ListOrderNotesRequest(order_id=str(uuid4()), include_total_size=True), **options
    )


def list_tags(clients: Clients, **options: Any) -> Awaitable[Any]:
    return clients.orders.ListTags(pb.ListTagsRequest(), **options)


EXPENSIVE = [search_notes, search_users, statistics, count_users, count_orders, count_notes, list_tags]


async def test_a_flood_of_searches_takes_no_connection_from_other_calls_and_ends_with_its_callers(
    database_url: str, observer: Observer
) -> None:
    async with serving_clients(database_url, db_pool_size=4) as clients:
        user = await clients.create_user()
        with capture_logs() as logs:
            async with holding(database_url, "LOCK TABLE order_notes"):
                flood = [asyncio.ensure_future(search_notes(clients, timeout=2)) for _ in range(12)]
                await observer.until_waiting(2)
                connections = await observer.backends()
                for _ in range(20):
                    request = users_pb.GetUserRequest(username=user.username)
                    assert (await clients.users.GetUser(request, timeout=10)).user == user
                await clients.create_order(user.id)
                assert len(await observer.backends(waiting=True)) <= 2
                answers, failures = await settled(*flood)
                assert not answers
                assert {failure.code for failure in failures} == {StatusCode.DEADLINE_EXCEEDED}
                # PostgreSQL has cancelled the searches, although the lock is still held.
                await observer.until_idle()
                assert connections <= await observer.backends()
            await search_notes(clients)
            assert connections <= await observer.backends()
    assert [line for line in logs if line["log_level"] in {"error", "warning"}] == []


@pytest.mark.parametrize("read", EXPENSIVE)
async def test_an_expensive_read_whose_client_goes_is_cancelled(
    database_url: str, observer: Observer, read: Call
) -> None:
    async with serving_clients(database_url) as clients:
        # It also prepares the statement.
        await read(clients)
        async with holding(database_url, LOCK):
            reading = asyncio.ensure_future(read(clients))
            connections = await observer.until_waiting(1)
            reading.cancel()
            await observer.until_idle()
            assert connections <= await observer.backends()
        await read(clients)


@pytest.mark.parametrize("read", EXPENSIVE)
async def test_an_expensive_read_has_a_time_limit_of_its_own(database_url: str, observer: Observer, read: Call) -> None:
    async with serving_clients(database_url, expensive_read_timeout=0.3) as clients:
        await read(clients)
        async with holding(database_url, LOCK):
            reading = asyncio.ensure_future(read(clients, timeout=20))
            connections = await observer.until_waiting(1)
            with fails(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                await reading
            await observer.until_idle()
            assert connections <= await observer.backends()
        await read(clients)


class SlowProxy(Proxy):
    """A proxy that holds back what the first connection sends, while `arrive` is not set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.arrive = asyncio.Event()
        self.arrive.set()
        self.holds = False
        self.ended_connections = 0
        self._first: StreamReader | None = None

    async def there(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward the messages of the first connection when they may arrive, all others immediately."""
        self._first = self._first or reader
        while data := await reader.read(65536):
            if reader is self._first:
                self.holds = not self.arrive.is_set()
                await self.arrive.wait()
            writer.write(data)
            await writer.drain()

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward the answers, and count the connections that PostgreSQL has ended."""
        await super().back(reader, writer)
        self.ended_connections += 1


async def test_a_statement_that_arrives_after_the_request_to_cancel_it_is_cancelled_too(database_url: str) -> None:
    async with listening(SlowProxy(database_url)) as proxy, driver_connection(proxy.url) as connection:
        sleep = "SELECT pg_sleep($1)"
        # It also prepares the statement.
        await connection.fetch(sleep, 0.0)
        proxy.arrive.clear()
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reading = asyncio.ensure_future(fetch_until(gone, 60, connection, sleep, [60.0]))
        await eventually(lambda: proxy.holds)
        gone.set_result(None)
        await eventually(lambda: proxy.ended_connections)
        proxy.arrive.set()
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(reading, 20)
        assert await connection.fetchval("SELECT 1") == 1


async def test_each_kind_has_its_own_share_and_all_kinds_together_half_of_the_pool(
    database_url: str, observer: Observer
) -> None:
    async with serving_clients(database_url, db_pool_size=8, expensive_read_connections=2) as clients:
        user = await clients.create_user()
        async with holding(database_url, "LOCK TABLE orders, order_notes"):
            reading = [asyncio.ensure_future(search_notes(clients)) for _ in range(4)]
            await observer.until_waiting(2)
            reading += [asyncio.ensure_future(statistics(clients)) for _ in range(4)]
            await observer.until_waiting(4)
            # No connection of the half is left for it.
            reading.append(asyncio.ensure_future(count_users(clients)))
            request = users_pb.GetUserRequest(username=user.username)
            assert (await clients.users.GetUser(request, timeout=10)).user == user
            assert not reading[-1].done()
            assert len(await observer.backends(waiting=True)) == 4
        await asyncio.gather(*reading)


async def test_a_search_that_waits_for_its_share_is_dropped_with_its_caller(
    database_url: str, observer: Observer
) -> None:
    async with serving_clients(database_url, expensive_read_connections=1) as clients:
        async with holding(database_url, "LOCK TABLE order_notes"):
            first = asyncio.ensure_future(search_notes(clients))
            await observer.until_waiting(1)
            _, failures = await settled(*(search_notes(clients, timeout=0.3) for _ in range(8)))
            assert {failure.code for failure in failures} == {StatusCode.DEADLINE_EXCEEDED}
            assert len(await observer.backends(waiting=True)) == 1
        await first
        # Nothing is left of the others.
        await eventually(_nothing_left)


def _nothing_left() -> bool:
    return not any("ExpensiveReads.rows" in repr(task.get_coro()) for task in asyncio.all_tasks())
