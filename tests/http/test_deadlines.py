"""The deadline of an HTTP call, and the end of its client, reach the call of the service."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import commerce.users.v1.user_service_pb2 as users_pb
import pytest

from tests.http.conftest import Site, running_site
from tests.support.databases import Observer
from tests.support.http_calls import CONNECT, STREAMS, UNARY, USERS, frame, grpc_web_trailers
from tests.support.locks import holding
from tests.support.logs import logged
from tests.support.waiting import eventually

GET_USER, UPDATE_USER, WATCH_USERS = f"{USERS}/GetUser", f"{USERS}/UpdateUser", f"{USERS}/WatchUsers"
EVERYTHING_LOCKED = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"


@pytest.fixture
async def own_site(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url) as site:
        yield site


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"connect-timeout-ms": "200"}, 504),
        ({"grpc-timeout": "200m"}, 504),
        ({"connect-timeout-ms": "200", **CONNECT}, 504),
    ],
)
async def test_a_deadline_reaches_postgresql(
    own_site: Site, database_url: str, observer: Observer, headers: Mapping[str, str], status: int
) -> None:
    user = await own_site.grpc.create_user()
    async with holding(database_url, EVERYTHING_LOCKED):
        response = await own_site.http.post(
            UPDATE_USER, json={"user": {"id": user.id, "fullName": "Ada"}}, headers=dict(headers)
        )
        assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
        # The statement is cancelled although the lock is still held.
        await observer.until_idle()


async def test_a_deadline_that_passes_here_says_that_a_change_may_have_happened(
    own_site: Site, database_url: str
) -> None:
    user = await own_site.grpc.create_user()
    async with holding(database_url, EVERYTHING_LOCKED):
        timeout = {"connect-timeout-ms": "100"}
        read = await own_site.http.post(GET_USER, json={"id": user.id}, headers=timeout)
        change = {"user": {"id": user.id, "fullName": "A"}}
        write = await own_site.http.post(UPDATE_USER, json=change, headers=timeout)
        connect = await own_site.http.post(UPDATE_USER, json=change, headers={**timeout, **CONNECT})
    assert read.json() == {
        "code": 4,
        "message": "the deadline of the call passed before the service answered",
        "details": [],
    }
    assert "if the method changes something, that may have happened" in write.json()["message"]
    assert connect.json() == {"code": "deadline_exceeded", "message": write.json()["message"]}


async def test_grpc_web_has_deadlines_too(own_site: Site, database_url: str) -> None:
    user = await own_site.grpc.create_user()
    async with holding(database_url, EVERYTHING_LOCKED):
        response = await own_site.http.post(
            GET_USER,
            content=UNARY["grpc-web"].body(users_pb.GetUserRequest(id=user.id)),
            headers={**UNARY["grpc-web"].headers, "grpc-timeout": "200m"},
        )
    assert grpc_web_trailers(response.content)["grpc-status"] == "4"


@pytest.mark.parametrize("headers", [{}, CONNECT], ids=["json", "connect"])
async def test_a_client_that_goes_cancels_its_call(
    own_site: Site, database_url: str, observer: Observer, headers: dict[str, str]
) -> None:
    user = await own_site.grpc.create_user()
    with logged() as log:
        async with holding(database_url, EVERYTHING_LOCKED):
            calling = asyncio.ensure_future(own_site.http.post(GET_USER, json={"id": user.id}, headers=headers))
            await observer.until_waiting(1)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            await log.line(event="call", method=GET_USER, code="CANCELLED")


@pytest.mark.parametrize("protocol", STREAMS)
async def test_a_client_that_goes_cancels_its_stream(own_site: Site, protocol: str) -> None:
    sent = STREAMS[protocol]
    with logged() as log:
        request = sent.body(users_pb.WatchUsersRequest(now=True))
        async with own_site.http.stream("POST", WATCH_USERS, content=request, headers=dict(sent.headers)) as response:
            await anext(response.aiter_raw())
        await log.line(event="call", method=WATCH_USERS, code="CANCELLED")


async def test_a_watch_ends_at_its_deadline(own_site: Site) -> None:
    plain = await own_site.http.post(WATCH_USERS, json={"now": True}, headers={"connect-timeout-ms": "300"})
    assert plain.text.splitlines()[-1].startswith('{"error":{"code":4,')
    connect = await own_site.http.post(
        WATCH_USERS,
        content=frame(b'{"now": true}'),
        headers={"content-type": "application/connect+json", "connect-timeout-ms": "300", **CONNECT},
    )
    assert b'"deadline_exceeded"' in connect.content


async def test_a_call_without_a_deadline_has_that_of_the_service(database_url: str) -> None:
    async with running_site(database_url, default_deadline=0.3) as site:
        user = await site.grpc.create_user()
        async with holding(database_url, EVERYTHING_LOCKED):
            response = await site.http.post(UPDATE_USER, json={"user": {"id": user.id, "fullName": "A"}})
    assert (response.status_code, response.json()["details"][0]["reason"]) == (504, "DEADLINE_EXCEEDED")


async def test_http_clients_give_up_without_harm(own_site: Site) -> None:
    """A client that goes while it sends its request leaves nothing behind."""
    _, writer = await asyncio.open_connection("127.0.0.1", own_site.server.http_port)
    writer.write(
        b"POST /commerce.users.v1.UserService/GetUser HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"
    )
    await writer.drain()
    await eventually(lambda: own_site.port.open_connections() == 1)
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: own_site.port.open_connections() == 0)
    assert own_site.port.requests.used == 0
    assert (await own_site.http.post(GET_USER, json={})).status_code == 400
