import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from commerce.users.v1.user_service_pb2 import ExportUsersRequest, GetUserRequest

from benchmarks.calls import (
    GRPC,
    BadReplyError,
    CannotBuildError,
    Load,
    Outcome,
    Protocol,
    build,
    make_calls,
    write_calls,
)
from benchmarks.workloads import Call
from service.server import Server
from tests.support.clients import Clients, connect
from tests.support.locks import holding
from tests.support.servers import running_server
from tests.support.watching import watch_orders

EIGHT_IN_FLIGHT = Load(connections=2, streams=4)
ONE_BY_ONE = Load(connections=1, streams=1)
HTTP1 = Protocol(http1=True)
GET_USER = "/commerce.users.v1.UserService/GetUser"
MISSING = "0190a0b0-0000-7000-8000-000000000000"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("load"))
    except CannotBuildError as error:
        pytest.skip(error.message)


async def test_replies_with_the_expected_text_are_good(
    program: Path, server: Server, clients: Clients, tmp_path: Path
) -> None:
    ids = [(await clients.create_user()).id for _ in range(3)]
    calls = [get_user(user_id, expect=user_id) for user_id in ids]
    outcome = await made(program, server.port, calls, tmp_path, EIGHT_IN_FLIGHT, count=50)
    assert 0 < outcome.p50_ms <= outcome.p99_ms <= outcome.seconds * 1000


async def test_calls_at_a_rate_are_all_made(program: Path, server: Server, clients: Clients, tmp_path: Path) -> None:
    user_id = (await clients.create_user()).id
    load = Load(connections=2, streams=4, rate=200)
    outcome = await made(program, server.port, [get_user(user_id, expect=user_id)], tmp_path, load, count=40)
    # At this rate, forty calls are due within 0.2 s on average; at Poisson times, they may take less.
    assert outcome.seconds > 40 / 200 / 3


async def test_a_reply_without_the_expected_text_is_bad(
    program: Path, server: Server, clients: Clients, tmp_path: Path
) -> None:
    one, other = (await clients.create_user()).id, (await clients.create_user()).id
    calls = [get_user(one, expect=one), get_user(other, expect=one)]
    with pytest.raises(BadReplyError, match=rf"5 of 10 replies are bad: {GET_USER}: the reply lacks what is expected"):
        await made(program, server.port, calls, tmp_path, EIGHT_IN_FLIGHT, count=10)


async def test_a_status_that_is_not_ok_is_bad(program: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadReplyError, match=r"10 of 10 replies are bad: .*: grpc-status 5, "):
        await made(program, server.port, [get_user(MISSING, expect="")], tmp_path, EIGHT_IN_FLIGHT, count=10)


async def test_calls_may_be_refused_for_load(program: Path, database_url: str, tmp_path: Path) -> None:
    may_refuse = Load(connections=2, streams=4, may_refuse=True)
    async with (
        running_server(database_url, max_concurrent_calls=1) as server,
        connect(server.port) as clients,
        watch_orders(clients, now=True) as watch,
    ):
        await watch.checkpoint()
        port = server.port
        outcome = await made(program, port, [get_user(MISSING, expect="")], tmp_path, may_refuse, count=20)
        assert (outcome.answers, outcome.refused) == (0, 20)
        with pytest.raises(BadReplyError, match=r"10 of 10 replies are bad: .*: grpc-status 8, server overloaded"):
            await made(program, port, [get_user(MISSING, expect="")], tmp_path, EIGHT_IN_FLIGHT, count=10)


async def test_calls_expire_at_their_deadlines(program: Path, database_url: str, tmp_path: Path) -> None:
    load = Load(connections=2, streams=4, deadline=0.3)
    async with running_server(database_url) as server, connect(server.port) as clients:
        user = await clients.create_user()
        call = get_user(user.id, expect=user.id)
        async with holding(database_url, "LOCK TABLE users"):
            expired = await made(program, server.port, [call], tmp_path, load, count=20)
        answered = await made(program, server.port, [call], tmp_path, replace(load, deadline=30), count=20)
    assert (expired.answers, expired.expired) == (0, 20)
    assert 0.9 <= expired.seconds < 9
    assert (answered.answers, answered.expired) == (20, 0)


async def test_a_reply_without_a_message_is_bad(program: Path, database_url: str, tmp_path: Path) -> None:
    export = Call("/commerce.users.v1.UserService/ExportUsers", ExportUsersRequest().SerializeToString(), b"")
    async with running_server(database_url) as server:
        with pytest.raises(
            BadReplyError, match=r"1 of 1 replies are bad: .*: 0 bytes that are not exactly one message"
        ):
            await made(program, server.port, [export], tmp_path, ONE_BY_ONE, count=1)


async def test_a_server_that_is_down_gives_no_result(program: Path, unused_tcp_port: int, tmp_path: Path) -> None:
    with pytest.raises(BadReplyError, match="cannot connect"):
        await made(program, unused_tcp_port, [get_user(MISSING, expect="")], tmp_path, ONE_BY_ONE, count=1)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n[17]",
        b"HTTP/1.1 201 Created\r\nX: y\r\nContent-Length:17\r\n\r\n[17, 18, 19, 170]",
    ],
)
async def test_good_replies_over_http1(program: Path, tmp_path: Path, reply: bytes) -> None:
    # The reply may be split anywhere, even within the headers.
    for cut in (1, 20, len(reply) - 3):
        async with answering([reply[:cut], reply[cut:]]) as port:
            await made(program, port, [Call("POST /x", b"[]", b"17")], tmp_path, ONE_BY_ONE, count=3, protocol=HTTP1)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nno17", r"2 of 2 replies are bad: GET /x: HTTP status 500, no17"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[18]", r"2 of 2 replies are bad: GET /x: the reply lacks"),
        (b"HTTP/1.1 200 OK\r\n\r\n[17]", r"expected an HTTP/1.1 reply with a content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[17]]", r"the server sent more than the content-length"),
        (b"", r"the server closed a connection"),
    ],
)
async def test_bad_replies_over_http1(program: Path, tmp_path: Path, reply: bytes, words: str) -> None:
    async with answering([reply]) as port:
        with pytest.raises(BadReplyError, match=words):
            await made(program, port, [Call("GET /x", b"", b"17")], tmp_path, ONE_BY_ONE, count=2, protocol=HTTP1)


async def test_a_stall_is_charged_to_every_call_that_was_due_meanwhile(program: Path, tmp_path: Path) -> None:
    reply, stall_seconds = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0.5
    load = Load(connections=1, streams=1, rate=1000)
    async with answering([reply], stall_seconds=stall_seconds) as port:
        outcome = await made(program, port, [Call("GET /x", b"", b"")], tmp_path, load, count=50, protocol=HTTP1)
    # All calls were due within about a tenth of the stall. Measured from when they were sent, only the first is slow.
    assert outcome.p50_ms > stall_seconds * 1000 / 2


def get_user(user_id: str, *, expect: str) -> Call:
    return Call(GET_USER, GetUserRequest(id=user_id).SerializeToString(), expect.encode())


async def made(
    program: Path, port: int, calls: Sequence[Call], folder: Path, load: Load, *, count: int, protocol: Protocol = GRPC
) -> Outcome:
    file = folder / "calls"
    write_calls(file, calls)
    return await asyncio.to_thread(make_calls, program, port, file, count, load, protocol)


@asynccontextmanager
async def answering(parts: Sequence[bytes], *, stall_seconds: float = 0) -> AsyncIterator[int]:
    """Answer each HTTP/1.1 request with these parts, the first request late; if all are empty, close the connection."""
    stalls = [stall_seconds]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Until the caller closes the connection.
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (head := await reader.readuntil(b"\r\n\r\n")) and any(parts):
                await reader.readexactly(2 if head.startswith(b"POST") else 0)
                await asyncio.sleep(stalls.pop() if stalls else 0)
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
