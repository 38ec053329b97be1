"""The health service while the database fails and recovers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.rpc import health
from service.rpc.health import FAILURES_TO_STOP, SUCCESSES_TO_SERVE, Readiness
from service.server import SERVICES, Server
from tests.support.clients import Clients, connect
from tests.support.databases import driver_connection, observing
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.logs import Log
from tests.support.proxies import Proxy, proxy_to
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually

LIVENESS = ""
NEEDING_THE_DATABASE = ("readiness", *SERVICES)
UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = HealthCheckResponse.ServingStatus.values()


async def check(clients: Clients, name: str) -> int:
    status: int = (await clients.health.Check(HealthCheckRequest(service=name))).status
    return status


async def statuses(clients: Clients) -> set[int]:
    return {await check(clients, name) for name in NEEDING_THE_DATABASE}


async def until_all(clients: Clients, status: int) -> None:
    async def all_are() -> bool:
        return await statuses(clients) == {status}

    await eventually(all_are)


@pytest.mark.parametrize("name", [LIVENESS, *NEEDING_THE_DATABASE])
async def test_a_server_with_its_database_serves(clients: Clients, name: str) -> None:
    assert await check(clients, name) == SERVING
    watch = clients.health.Watch(HealthCheckRequest(service=name))
    assert (await watch.read()).status == SERVING
    watch.cancel()


async def test_one_channel_has_room_for_hundreds_of_calls(server: Server) -> None:
    async with connect(server.port, own_connection=True) as clients:
        # Sent together on a new connection, before the client knows the server's limit.
        watches = [clients.health.Watch(HealthCheckRequest()) for _ in range(500)]
        async with asyncio.timeout(30):
            responses = await asyncio.gather(*(watch.read() for watch in watches))
        assert {response.status for response in responses} == {SERVING}
        assert await check(clients, LIVENESS) == SERVING
        for watch in watches:
            watch.cancel()


async def test_all_services_are_listed_with_their_statuses(clients: Clients) -> None:
    call: Any = clients.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=health_pb2.HealthListRequest.SerializeToString,  # type: ignore[attr-defined] # no stubs
        response_deserializer=health_pb2.HealthListResponse.FromString,  # type: ignore[attr-defined] # no stubs
    )
    response = await call(health_pb2.HealthListRequest())  # type: ignore[attr-defined] # no stubs
    assert {name: found.status for name, found in response.statuses.items()} == dict.fromkeys(
        (LIVENESS, *NEEDING_THE_DATABASE), SERVING
    )


async def test_a_check_of_an_unknown_service_is_not_found(clients: Clients) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await check(clients, "commerce.users.v1.NoService")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_watch_of_an_unknown_service_says_so_and_waits(clients: Clients) -> None:
    watch = clients.health.Watch(HealthCheckRequest(service="commerce.users.v1.NoService"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()


@asynccontextmanager
async def watching(clients: Clients, name: str) -> AsyncIterator[Any]:
    watch = clients.health.Watch(HealthCheckRequest(service=name))
    assert (await watch.read()).status == SERVING
    yield watch
    watch.cancel()


@asynccontextmanager
async def served_through_proxy(database_url: str) -> AsyncIterator[tuple[Proxy, Clients]]:
    async with (
        proxy_to(database_url) as proxy,
        serving_clients(proxy.url) as clients,
    ):
        yield proxy, clients


async def test_readiness_follows_the_database_and_liveness_does_not(database_url: str) -> None:
    async with (
        served_through_proxy(database_url) as (proxy, clients),
        watching(clients, LIVENESS) as liveness,
        watching(clients, "readiness") as readiness,
        watching(clients, SERVICES[1]) as orders,
    ):
        user = await clients.create_user()
        request = users_pb.GetUserRequest(id=user.id)
        await proxy.refuse()
        await until_all(clients, NOT_SERVING)
        assert await check(clients, LIVENESS) == SERVING
        assert [(await watch.read()).status for watch in (readiness, orders)] == [NOT_SERVING] * 2
        with fails(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE") as failure:
            await clients.users.GetUser(request)
        assert failure.details[RetryInfo] == RetryInfo(retry_delay=Duration(seconds=1))

        await proxy.listen()
        await until_all(clients, SERVING)
        assert [(await watch.read()).status for watch in (readiness, orders)] == [SERVING] * 2
        assert (await clients.users.GetUser(request)).user == user
        # Readiness never changed, so the watch sent nothing.
        news = asyncio.ensure_future(liveness.read())
        assert await check(clients, LIVENESS) == SERVING
        assert not news.done()
        news.cancel()


async def test_a_server_whose_schema_falls_behind_is_not_ready(database_url: str) -> None:
    async with serving_clients(database_url) as clients:
        async with driver_connection(database_url) as connection:
            await connection.execute("ALTER TABLE alembic_version RENAME TO moved")
            await until_all(clients, NOT_SERVING)
            await connection.execute("ALTER TABLE moved RENAME TO alembic_version")
            await until_all(clients, SERVING)
            await connection.execute("UPDATE alembic_version SET version_num = 'a_later_one'")
        assert await check(clients, LIVENESS) == SERVING
        assert await statuses(clients) == {SERVING}


async def test_a_full_pool_is_not_a_lost_database(database_url: str) -> None:
    settings = {"db_pool_size": 1, "db_pool_timeout": 0.1}
    async with (
        running_server(database_url, **settings) as server,
        connect(server.port) as clients,
        observing(database_url) as observer,
    ):
        request = users_pb.GetUserRequest(id=(await clients.create_user()).id)
        async with holding(database_url, "LOCK TABLE users"):
            call = asyncio.ensure_future(clients.users.GetUser(request))
            await observer.until_waiting(1)
            with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                await clients.users.GetUser(request)
            assert await server.database.problem() is None
        await call


async def told(servicer: aio.HealthServicer) -> set[int]:
    # Check uses the context only to refuse unknown names.
    no_context: Any = None
    requests = [HealthCheckRequest(service=name) for name in NEEDING_THE_DATABASE]
    return {(await servicer.Check(request, no_context)).status for request in requests}


class Observed:
    """The readiness of a ready server, and the statuses that it sets in the health service."""

    def __init__(self) -> None:
        self._servicer = aio.HealthServicer()
        self.readiness = Readiness(self._servicer, SERVICES, self._no_problem)

    async def _no_problem(self) -> str | None:
        return None

    async def after(self, *problems: str | None) -> set[int]:
        for problem in problems:
            await self.readiness.observe(problem)
        return await told(self._servicer)


AWAY = "the database cannot be reached"


@pytest.fixture
async def readiness() -> Observed:
    observed = Observed()
    await observed.readiness.start()
    return observed


async def test_readiness_ends_after_enough_failures_in_a_row(readiness: Observed) -> None:
    assert await readiness.after(*[AWAY] * (FAILURES_TO_STOP - 1)) == {SERVING}
    assert await readiness.after(AWAY) == {NOT_SERVING}


async def test_readiness_comes_back_after_enough_successes_in_a_row(readiness: Observed) -> None:
    assert await readiness.after(*[AWAY] * FAILURES_TO_STOP) == {NOT_SERVING}
    assert await readiness.after(*[None] * (SUCCESSES_TO_SERVE - 1)) == {NOT_SERVING}
    assert await readiness.after(None) == {SERVING}


async def test_a_database_that_comes_and_goes_changes_nothing(readiness: Observed) -> None:
    for _ in range(5):
        assert await readiness.after(*[AWAY] * (FAILURES_TO_STOP - 1), None) == {SERVING}
    assert await readiness.after(*[AWAY] * FAILURES_TO_STOP) == {NOT_SERVING}
    for _ in range(5):
        assert await readiness.after(*[None] * (SUCCESSES_TO_SERVE - 1), AWAY) == {NOT_SERVING}


async def test_a_check_that_fails_itself_ends_readiness_and_not_the_checks(
    monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(health, "PERIOD_SECONDS", 0.001)
    broken = False

    async def check() -> str | None:
        if broken:
            raise LookupError(AWAY)
        return None

    servicer = aio.HealthServicer()
    readiness = Readiness(servicer, SERVICES, check)
    await readiness.start()
    watching = asyncio.create_task(readiness.watch())

    async def is_told(status: int) -> bool:
        return await told(servicer) == {status}

    try:
        assert await is_told(SERVING)
        broken = True
        await eventually(lambda: is_told(NOT_SERVING))
        assert log.lines(event="the check of the database failed", level="error")
        broken = False
        await eventually(lambda: is_told(SERVING))
    finally:
        watching.cancel()


async def test_readiness_takes_the_first_answer_at_its_word() -> None:
    async def away() -> str | None:
        return AWAY

    servicer = aio.HealthServicer()
    assert await Readiness(servicer, SERVICES, away).start() == AWAY
    assert await told(servicer) == {NOT_SERVING}
