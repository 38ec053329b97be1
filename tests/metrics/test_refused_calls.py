"""Calls that are refused, denied or abandoned are on the page of metrics, too."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from grpc import StatusCode

from service.rpc.admission import gate
from service.server import Server
from tests.support.clients import Clients, connect
from tests.support.databases import observing
from tests.support.failures import fails
from tests.support.locks import holding
from tests.support.metrics_pages import Page, read_page
from tests.support.policies import guarded_server
from tests.support.servers import running_server
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

SERVICE = "commerce.users.v1.UserService"
USERS = {"grpc_type": "unary", "grpc_service": SERVICE}
# Two calls of a method hold a connection, and four wait: half of the places are for one caller.
SMALL: dict[str, Any] = {"admission": True, "db_pool_size": 4, "admission_queue_size": 8, "admission_queue_timeout": 30}


def handled(page: Page, method: str) -> dict[tuple[str, ...], float]:
    counts = page.values("grpc_server_handled_total", **USERS, grpc_method=method)
    return {key: count for key, count in counts.items() if count}


async def settled_page(server: Server) -> Page:
    """Return the page once no call runs: a call that fails is counted when its client has been answered."""

    async def settled() -> Page | None:
        page = await read_page(server.metrics_port)
        return None if page.total("commerce_calls_running") else page

    page: Page = await eventually(settled)
    return page


async def page_with(server: Server, name: str, least: int = 1, /, **labels: str) -> Page:
    async def found() -> Page | None:
        page = await read_page(server.metrics_port)
        return page if page.total(name, **labels) >= least else None

    page: Page = await eventually(found)
    return page


async def test_unknown_callers_and_denied_calls(postgres_url: str, template_url: str, tmp_path: Path) -> None:
    grants = {"key:reader": ["users.read"]}
    async with guarded_server(postgres_url, template_url, tmp_path, grants, metrics_port=0) as guarded:
        reader, port = await guarded.clients_of("reader"), guarded.server.port
        with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
            await reader.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))
        with fails(StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
            await reader.create_user()
        async with connect(port) as anonymous:
            with fails(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER"):
                await anonymous.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))
            with fails(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER"):
                await anonymous.users.GetUser(
                    users_pb.GetUserRequest(id=str(uuid4())), metadata=(("x-api-key", "wrong"),)
                )
        page = await settled_page(guarded.server)
    assert handled(page, "GetUser") == {
        ("NOT_FOUND", "USER_NOT_FOUND"): 1,
        ("UNAUTHENTICATED", "UNAUTHENTICATED_CALLER"): 2,
    }
    assert handled(page, "CreateUser") == {("PERMISSION_DENIED", "PERMISSION_MISSING"): 1}
    assert page.values("commerce_authentications_total") == {("api_key",): 2}
    assert page.values("commerce_authentication_failures_total") == {("none", "missing"): 1, ("api_key", "unknown"): 1}
    assert page.values("commerce_permission_denials_total", grpc_method="CreateUser") == {(SERVICE, "users.write"): 1}
    loaded = page.values("commerce_loaded_timestamp_seconds", issuer="")
    assert loaded.keys() == {("policy",), ("api_keys",)}
    assert min(loaded.values()) > 1_700_000_000
    assert set(page.values("commerce_load_failing").values()) == {0}


async def test_calls_that_are_refused_for_load_by_what_is_full(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "STUCK_SECONDS", 60)
    monkeypatch.setattr(gate, "_STILL_LOOKS", 10_000)
    async with (
        running_server(database_url, metrics_port=0, **SMALL) as server,
        connect(server.port) as clients,
        observing(database_url) as observer,
    ):
        users = [await clients.create_user() for _ in range(6)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            calls = [deactivate(clients, user.id) for user in users[:2]]
            await observer.until_waiting(2)
            calls += [deactivate(clients, user.id) for user in users[2:]]
            page = await page_with(server, "commerce_admission_waiting", 4, grpc_method="DeactivateUser")
            assert page.total("commerce_calls_running", grpc_method="DeactivateUser") == 6
            assert page.total("commerce_db_pool_in_use", pool="transactions") == 2
            for _ in range(3):
                with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                    await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=users[0].id))
        await asyncio.wait(calls)
        page = await settled_page(server)
    assert handled(page, "DeactivateUser")[("RESOURCE_EXHAUSTED", "OVERLOADED")] == 3
    refused = page.values("commerce_calls_refused_total", grpc_method="DeactivateUser", grpc_service=SERVICE)
    assert refused == {("admission",): 3}


async def test_calls_that_are_refused_before_they_are_read(database_url: str) -> None:
    async with (
        running_server(database_url, metrics_port=0, max_concurrent_calls=1) as server,
        connect(server.port) as clients,
        watch_orders(clients, now=True) as watch,
    ):
        await watch.checkpoint()
        for _ in range(2):
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                await clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))
        page = await read_page(server.metrics_port)
    assert handled(page, "GetUser") == {("RESOURCE_EXHAUSTED", "OVERLOADED"): 2}
    labels = {"grpc_method": "GetUser"}
    assert page.total("grpc_server_started_total", **labels) == 2
    assert page.total("grpc_server_msg_received_total", **labels) == 0
    assert page.total("grpc_server_handling_seconds_count", **labels) == 0
    assert page.total("commerce_calls_refused_total", cause="calls", **labels) == 2


async def test_a_call_whose_client_has_gone_is_cancelled(database_url: str) -> None:
    async with (
        running_server(database_url, metrics_port=0) as server,
        connect(server.port) as clients,
        observing(database_url) as observer,
    ):
        user = await clients.create_user()
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            call = deactivate(clients, user.id)
            await observer.until_waiting(1)
            call.cancel()
            labels = {"grpc_method": "DeactivateUser", "grpc_code": "CANCELLED"}
            page = await page_with(server, "grpc_server_handled_total", **labels)
    assert handled(page, "DeactivateUser") == {("CANCELLED", ""): 1}
    assert page.total("commerce_calls_running") == 0


def deactivate(clients: Clients, user_id: str) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=user_id)))
