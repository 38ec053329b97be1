"""Admission on the wire: what waits, what is refused and how, and what is never limited."""

import asyncio
from pathlib import Path
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.rpc.admission import gate
from tests.support.clients import Clients, connect
from tests.support.databases import observing
from tests.support.failures import fails, settled
from tests.support.locks import holding
from tests.support.methods import path_of
from tests.support.policies import EVERYTHING, guarded_server
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

# Two calls of a method hold a connection, and four wait: half of the places are for one caller.
SMALL: dict[str, Any] = {
    "admission": True,
    "db_pool_size": 4,
    "admission_queue_size": 8,
    "admission_queue_timeout": 30,
}
START = 2


@pytest.fixture(autouse=True)
def _nothing_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STUCK_SECONDS", 60)
    monkeypatch.setattr(gate, "_STILL_LOOKS", 10_000)


def deactivate(clients: Clients, user_id: str, seconds: float | None = None) -> "asyncio.Future[Any]":
    request = users_pb.DeactivateUserRequest(id=user_id)
    return asyncio.ensure_future(clients.users.DeactivateUser(request, timeout=seconds))


async def test_calls_that_fill_a_queue_are_refused_and_other_methods_health_and_watches_go_on(
    database_url: str,
) -> None:
    async with serving_clients(database_url, **SMALL) as clients, observing(database_url) as observer:
        users = [await clients.create_user() for _ in range(START + 4)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            running = [deactivate(clients, user.id) for user in users[:START]]
            await observer.until_waiting(START)
            waiting = [deactivate(clients, user.id) for user in users[START:]]
            for _ in range(20):
                with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                    await refused(clients, users[0].id)
                retry = failure.details[RetryInfo]
                assert isinstance(retry, RetryInfo)
                milliseconds = int(str(failure.trailers["grpc-retry-pushback-ms"]))
                assert 500 <= milliseconds <= 1500
                assert milliseconds == round(retry.retry_delay.ToTimedelta().total_seconds() * 1000)
                # Those of other methods do not wait for these.
                await clients.users.GetUser(users_pb.GetUserRequest(id=users[0].id))
                answer = await clients.health.Check(HealthCheckRequest())
                assert answer.status == HealthCheckResponse.SERVING
            async with watch_orders(clients, now=True) as watch:
                await watch.checkpoint()
            await clients.users.SearchUsers(users_pb.SearchUsersRequest(query="ada"))
        answers, failures = await settled(*running, *waiting)
        assert (len(answers), failures) == (len(users), [])


async def refused(clients: Clients, user_id: str) -> None:
    """Make a call that is expected to be refused: until the queue is full, it waits there."""
    await eventually(lambda: was_refused(clients, user_id), 10)
    await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user_id), timeout=10)


async def was_refused(clients: Clients, user_id: str) -> bool:
    _, failures = await settled(deactivate(clients, user_id, 0.2))
    return [failure.reason for failure in failures] == ["OVERLOADED"]


async def test_a_call_that_waits_until_its_deadline_is_never_started(database_url: str) -> None:
    async with serving_clients(database_url, **SMALL) as clients, observing(database_url) as observer:
        users = [await clients.create_user() for _ in range(START)]
        late = await clients.create_user()
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            running = [deactivate(clients, user.id) for user in users]
            await observer.until_waiting(START)
            _, (failure,) = await settled(deactivate(clients, late.id, 0.3))
            assert failure.code == StatusCode.DEADLINE_EXCEEDED
            abandoned = deactivate(clients, late.id)
            await asyncio.sleep(0.1)
            abandoned.cancel()
        await asyncio.wait(running)
        # A call that follows them.
        await clients.users.ReactivateUser(users_pb.ReactivateUserRequest(id=users[0].id))
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=late.id))).user.etag == late.etag


async def test_a_write_whose_client_has_gone_runs_until_it_has_ended(database_url: str) -> None:
    async with running_server(database_url, **SMALL) as server, connect(server.port) as clients:
        assert server.admission
        writes = server.admission.gates[path_of("DeactivateUser")]
        users = [await clients.create_user() for _ in range(START)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"), observing(database_url) as observer:
            running = [deactivate(clients, user.id) for user in users]
            await observer.until_waiting(START)
            for call in running:
                call.cancel()
            # A call that comes later would run if there were a place.
            waiting = deactivate(clients, users[0].id)
            await eventually(lambda: writes.waiting == 1)
            await asyncio.sleep(0.3)
            assert (writes.running, writes.waiting) == (START, 1)
        await asyncio.wait([waiting])
        await eventually(lambda: (writes.running, writes.waiting) == (0, 0))


async def test_a_call_waits_no_longer_than_the_setting(database_url: str) -> None:
    settings = {**SMALL, "admission_queue_timeout": 0.1}
    async with serving_clients(database_url, **settings) as clients, observing(database_url) as observer:
        users = [await clients.create_user() for _ in range(START + 1)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            running = [deactivate(clients, user.id) for user in users[:START]]
            await observer.until_waiting(START)
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                await deactivate(clients, users[START].id, 20)
            assert "grpc-retry-pushback-ms" in failure.trailers
        await asyncio.wait(running)


async def test_no_call_is_refused_while_none_ends(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setattr(gate, "_STILL_LOOKS", 5)
    settings = {"admission": True, "admission_queue_timeout": 2}
    async with running_server(database_url, **settings) as server, connect(server.port) as clients:
        users = [await clients.create_user() for _ in range(30)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            running = [deactivate(clients, user.id) for user in users]
            assert server.admission
            writes = server.admission.gates[path_of("DeactivateUser")]
            await eventually(lambda: len(writes.callers) == 1 and writes.waiting > 0)
            await eventually(lambda: writes.waiting == 0)
            assert not any(call.done() for call in running)
        answers, failures = await settled(*running)
        assert (len(answers), failures) == (30, [])


async def test_a_flood_of_one_caller_does_not_keep_out_another(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    allowed = {"key:flood": EVERYTHING, "key:polite": EVERYTHING}
    async with guarded_server(postgres_url, template_url, tmp_path, allowed, **SMALL) as guarded:
        flood, polite = await guarded.clients_of("flood"), await guarded.clients_of("polite")
        users = [await flood.create_user() for _ in range(START + 4)]
        own = await polite.create_user()
        ids = [user.id for user in users]
        async with (
            holding(guarded.database_url, "SELECT FROM users WHERE id = ANY($1::uuid[]) FOR UPDATE", ids),
            observing(guarded.database_url) as observer,
        ):
            running = [deactivate(flood, user_id) for user_id in ids]
            await observer.until_waiting(START)
            await eventually(lambda: was_refused(flood, ids[0]))
            for _ in range(5):
                await polite.users.DeactivateUser(users_pb.DeactivateUserRequest(id=own.id))
                await polite.users.ReactivateUser(users_pb.ReactivateUserRequest(id=own.id))
        answers, failures = await settled(*running)
        assert (len(answers), failures) == (len(ids), [])


async def test_without_admission_nothing_waits_for_its_turn(database_url: str) -> None:
    async with serving_clients(database_url, admission=False) as clients, observing(database_url) as observer:
        users = [await clients.create_user() for _ in range(20)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            running = [deactivate(clients, user.id) for user in users]
            # As many as there are connections for transactions.
            await observer.until_waiting(8)
        answers, failures = await settled(*running)
        assert (len(answers), failures) == (20, [])
