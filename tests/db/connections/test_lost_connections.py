"""Connections that silently stop working: how soon calls recover, what is logged, and what is not taken for lost."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.users.v1.user_pb2 import User
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service.application.ports.errors import DatabaseUnavailable
from service.config import DatabaseSettings, load
from service.db.connections import lost_connections
from service.db.connections.engine import create_engine
from service.db.events.relay_cursor import active_relay
from service.relay import TIMEOUT_SECONDS
from tests.support.clients import Clients, new_order
from tests.support.databases import Observer, driver_connection
from tests.support.locks import holding
from tests.support.proxies import Proxy, proxy_to
from tests.support.servers import serving_clients
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

# Calls recover within three seconds, here also on a machine that is busy with other tests. Without what is tested here,
# they take 35 s, and these calls fail at their deadline.
RECOVERY_SECONDS = 6.0
Call = Callable[[], Awaitable[Any]]


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: no line was logged yet."""
    monkeypatch.setattr(lost_connections, "_logged", {})


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def lost(logs: list[EventDict]) -> list[EventDict]:
    return [line for line in logs if line["event"] == "lost a connection to the database"]


@asynccontextmanager
async def behind_proxy(database_url: str, **settings: object) -> AsyncIterator[tuple[Proxy, Clients, User]]:
    async with proxy_to(database_url) as proxy, serving_clients(proxy.url, **settings) as clients:
        user = await clients.create_user()
        await open_connections(clients, database_url, user)
        yield proxy, clients, user


async def open_connections(clients: Clients, database_url: str, user: User, number: int = 8) -> None:
    """Make the pool open some connections, which are idle afterwards."""
    async with holding(database_url, "LOCK TABLE users"), driver_connection(database_url) as connection:
        calls = [asyncio.ensure_future(get_by_name(clients, user)()) for _ in range(number)]
        await Observer(connection).until_waiting(number)
    await asyncio.gather(*calls)


def get_by_id(clients: Clients, user: User, timeout: float = 10) -> Call:
    return lambda: clients.users.GetUser(users_pb.GetUserRequest(id=user.id), timeout=timeout)


def get_by_name(clients: Clients, user: User, timeout: float = 10) -> Call:
    return lambda: clients.users.GetUser(users_pb.GetUserRequest(username=user.username), timeout=timeout)


def create_order(clients: Clients, user: User, timeout: float = 10) -> Call:
    request = orders_pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
    return lambda: clients.orders.CreateOrder(request, timeout=timeout)


def grant_credit(clients: Clients, user: User, timeout: float = 10) -> Call:
    request = users_pb.GrantCreditRequest(user_id=user.id, request_id=str(uuid4()))
    request.amount.currency_code, request.amount.units = "EUR", 1
    return lambda: clients.users.GrantCredit(request, timeout=timeout)


def search(clients: Clients, user: User, timeout: float = 10) -> Call:
    request = orders_pb.SearchOrderNotesRequest(query=user.username)
    return lambda: clients.orders.SearchOrderNotes(request, timeout=timeout)


KINDS = [get_by_id, get_by_name, create_order, grant_credit, search]


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_on_forgotten_connections_succeed_soon(
    database_url: str, logs: list[EventDict], kind: Callable[..., Call]
) -> None:
    async with behind_proxy(database_url) as (proxy, clients, user):
        proxy.fall_silent()
        # No call fails: each is repeated on a new connection.
        async with asyncio.timeout(RECOVERY_SECONDS):
            await asyncio.gather(*(kind(clients, user)() for _ in range(2)))
            await asyncio.gather(*(get_by_id(clients, user)() for _ in range(20)))
        line = lost(logs)[0]
        assert line["address"] == f"127.0.0.1:{proxy.port}"
        assert line["cause"] == "PostgreSQL has not received what was sent, or its answer was lost"
        assert line["log_level"] == "warning"


async def test_a_call_that_waits_during_an_outage_succeeds_after_it(database_url: str) -> None:
    async with behind_proxy(database_url) as (proxy, clients, user):
        proxy.fall_silent(new_too=True)
        call = asyncio.ensure_future(get_by_id(clients, user, 25)())
        await asyncio.sleep(5)
        assert not call.done()
        proxy.fall_silent()
        async with asyncio.timeout(RECOVERY_SECONDS):
            assert (await call).user == user


async def until_every_call_works(calls: list[Call]) -> tuple[float, list[grpc.StatusCode]]:
    """Make calls until all of a round succeed; return the seconds until then, and how the others failed."""
    start = time.monotonic()
    failures: list[grpc.StatusCode] = []
    async with asyncio.timeout(20):
        while True:
            results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
            failed = [result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)]
            if not failed:
                return time.monotonic() - start, failures
            failures += failed


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_has_not_answered_by_a_deadline_is_not_used_again(
    database_url: str, kind: Callable[..., Call]
) -> None:
    # PostgreSQL cannot be asked about connections of PgBouncer, so only the deadlines of calls help.
    async with behind_proxy(database_url, pgbouncer_mode="transaction") as (proxy, clients, user):
        proxy.fall_silent()
        seconds, failures = await until_every_call_works([kind(clients, user, 1)] * 2)
        assert seconds <= RECOVERY_SECONDS, failures
        assert set(failures) <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
        # Two calls in each round, which takes a second.
        assert 1 <= len(failures) <= 2 * 4


async def test_a_statement_that_takes_long_keeps_its_connection(
    database_url: str, observer: Observer, logs: list[EventDict]
) -> None:
    async with behind_proxy(database_url) as (_, clients, user):
        async with holding(database_url, "LOCK TABLE users"):
            calls = [get_by_id(clients, user), get_by_name(clients, user), grant_credit(clients, user)]
            running = [asyncio.ensure_future(call()) for call in calls]
            waiting = await observer.until_waiting(3)
            # PostgreSQL is asked several times in the meantime.
            await asyncio.sleep(3)
            assert await observer.backends(waiting=True) == waiting
        await asyncio.gather(*running)
        assert waiting <= await observer.backends()
    assert not lost(logs)
    assert not [line for line in logs if line["event"] == "retrying"]


async def test_a_statement_is_cancelled_when_nobody_waits_for_it(database_url: str, observer: Observer) -> None:
    async with behind_proxy(database_url) as (_, clients, user):
        before = await observer.backends()
        async with holding(database_url, "LOCK TABLE users"):
            call = asyncio.ensure_future(get_by_name(clients, user, 0.3)())
            await observer.until_waiting(1)
            await eventually(lambda: no_longer_waiting(observer), seconds=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        # And its connection is as good as before.
        assert await observer.backends() == before


async def no_longer_waiting(observer: Observer) -> bool:
    return not await observer.backends(waiting=True)


async def test_many_lost_connections_are_one_line(database_url: str, logs: list[EventDict]) -> None:
    async with behind_proxy(database_url) as (proxy, clients, user):
        proxy.fall_silent()
        await asyncio.gather(*(get_by_name(clients, user)() for _ in range(8)))
    assert len(lost(logs)) == 1


async def test_readiness_notices_an_unreachable_database(database_url: str, logs: list[EventDict]) -> None:
    async with behind_proxy(database_url) as (proxy, clients, user):
        proxy.fall_silent(new_too=True)
        seconds = await seconds_until(clients, HealthCheckResponse.NOT_SERVING)
        # Four seconds, on an idle machine.
        assert seconds <= 8
        (line,) = [line for line in logs if line["event"] == "not ready"]
        assert f"127.0.0.1:{proxy.port}" in line["problem"]
        assert "answer in time" in line["problem"]
        # A call, too, ends by its deadline.
        with pytest.raises(grpc.aio.AioRpcError):
            await get_by_id(clients, user, 1)()
        proxy.fall_silent()
        assert await seconds_until(clients, HealthCheckResponse.SERVING) <= 8
        async with asyncio.timeout(RECOVERY_SECONDS):
            await get_by_id(clients, user)()


async def test_a_forgotten_connection_of_the_probe_takes_no_server_out_of_service(
    database_url: str, logs: list[EventDict]
) -> None:
    async with behind_proxy(database_url) as (proxy, _, _):
        proxy.fall_silent()
        await eventually(lambda: lost(logs))
        await asyncio.sleep(3)
    assert not [line for line in logs if line["event"] == "not ready"]


async def seconds_until(clients: Clients, status: int) -> float:
    start = time.monotonic()
    await eventually(lambda: has_status(clients, status))
    return time.monotonic() - start


async def has_status(clients: Clients, status: int) -> bool:
    found: int = (await clients.health.Check(HealthCheckRequest(service="readiness"))).status
    return found == status


async def test_a_watch_goes_on_after_its_connections_were_forgotten(database_url: str) -> None:
    async with (
        behind_proxy(database_url) as (proxy, clients, user),
        watch_orders(clients, now=True, user_ids=[user.id]) as stream,
    ):
        await stream.checkpoint()
        proxy.fall_silent()
        start = time.monotonic()
        await create_order(clients, user)()
        (event,) = await stream.events(1)
        assert event.user_id == user.id
        assert time.monotonic() - start <= RECOVERY_SECONDS


async def test_the_first_watch_on_forgotten_connections_is_retried(database_url: str) -> None:
    async with behind_proxy(database_url) as (proxy, clients, _):
        async with watch_orders(clients, now=True) as stream:
            await stream.checkpoint()
        proxy.fall_silent()
        async with asyncio.timeout(RECOVERY_SECONDS), watch_orders(clients, now=True) as stream:
            await stream.checkpoint()


async def test_a_replica_whose_connections_were_forgotten_is_replaced_by_the_primary(database_url: str) -> None:
    # Not a replica: what matters here is how long the answer takes, wherever it comes from.
    async with (
        proxy_to(database_url) as proxy,
        serving_clients(database_url, READ_DATABASE_URL=proxy.url) as clients,
    ):
        user = await clients.create_user()
        proxy.fall_silent(new_too=True)
        async with asyncio.timeout(RECOVERY_SECONDS):
            await clients.users.GetUser(
                users_pb.GetUserRequest(id=user.id), metadata=(("x-read-preference", "replica"),), timeout=10
            )


async def test_a_relay_gives_up_a_connection_that_does_not_answer(database_url: str) -> None:
    async with proxy_to(database_url) as proxy:
        settings = load(DatabaseSettings, DATABASE_URL=proxy.url)
        engine = create_engine(settings, pool_size=1, answer_seconds=TIMEOUT_SECONDS)
        try:
            async with active_relay(engine, "test") as events:
                cursor = await events.cursor()
                proxy.fall_silent()
                start = time.monotonic()
                with pytest.raises(DatabaseUnavailable):
                    await events.page(cursor)
            assert time.monotonic() - start <= TIMEOUT_SECONDS + 3
            # PostgreSQL releases the lock of the connection that was lost, so the relay is active again.
            async with asyncio.timeout(RECOVERY_SECONDS), active_relay(engine, "test") as events:
                assert await events.cursor() == cursor
        finally:
            await engine.dispose()


async def test_the_kernel_closes_connections_whose_packets_are_not_acknowledged(postgres_url: str) -> None:
    async with proxy_to(postgres_url) as proxy:
        engine = create_engine(load(DatabaseSettings, DATABASE_URL=proxy.url), pool_size=1)
        async with engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            found = raw._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no public access to it
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for name, value in lost_connections._SOCKET_OPTIONS.items():  # noqa: SLF001 - the values under test
                if hasattr(socket, name):
                    assert found.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
        await engine.dispose()
