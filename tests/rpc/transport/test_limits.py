"""The limits of connections, each broken by a client that sends frames of its own, while others are served."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from itertools import count, repeat
from pathlib import Path
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from service.rpc.transport.limits import connections_that_fit
from tests.support.certificates import Authority, tls_channel, write_files
from tests.support.clients import Clients, connect
from tests.support.databases import cloned
from tests.support.failures import fails
from tests.support.http2 import (
    PREFACE,
    Connection,
    call_frames,
    call_headers,
    connections,
    grpc_message,
    headers_frame,
    static_block,
)
from tests.support.locks import holding
from tests.support.logs import Log
from tests.support.memory import resident_megabytes
from tests.support.processes import Process, serving
from tests.support.servers import running_server, serving_clients
from tests.support.waiting import eventually

GET_USER = "/commerce.users.v1.UserService/GetUser"
BATCH_GET_USERS = static_block(call_headers("/commerce.users.v1.UserService/BatchGetUsers"))
# No response fits into this window.
NO_WINDOW = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
SERVING = HealthCheckResponse.SERVING
STALLED = "cancelled calls whose clients neither sent nor read in time"
PING = PingFrame(0, bytes(8)).serialize()


async def is_healthy(port: int) -> bool:
    """Return whether health is answered on a new connection."""
    async with connect(port, own_connection=True) as clients:
        try:
            return bool((await clients.health.Check(HealthCheckRequest(), timeout=5)).status == SERVING)
        except grpc.aio.AioRpcError as error:
            assert error.code() == StatusCode.UNAVAILABLE  # noqa: PT017 - another error is another failure
            return False


# Connections


async def test_connections_above_the_limit_are_closed(database_url: str) -> None:
    settings = {"max_connections": 20, "accept_mode": "calls"}
    async with running_server(database_url, **settings) as server, connect(server.port, own_connection=True) as clients:
        assert (await clients.health.Check(HealthCheckRequest())).status == SERVING
        with connections(server.port, 25, begins=False) as opened:
            for connection in opened:
                with suppress(OSError):
                    connection.begin()
            await eventually(lambda: sum(connection.is_closed() for connection in opened) == 6)
            assert not await is_healthy(server.port)
            # Those within the limit are served.
            assert (await clients.health.Check(HealthCheckRequest())).status == SERVING
        await eventually(lambda: is_healthy(server.port))


async def test_listeners_share_the_limit(database_url: str) -> None:
    settings = {"max_connections": 8, "accept_mode": "listeners", "pending_accepts": 4}
    async with running_server(database_url, **settings) as server:
        with connections(server.port, 60, begins=False) as opened:
            # The kernel does not distribute them evenly, but each of the four gets more than two.
            await eventually(lambda: sum(connection.is_closed() for connection in opened) == 52)


async def test_the_limit_of_open_files_is_raised_for_connections(log: Log) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (800, hard))
        assert connections_that_fit(1000) == 1000
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1512, hard)
        assert not log.lines(level="warning")
        # Nor is it lowered.
        assert connections_that_fit(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1512, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("files", "fitting"), [(1500, 988), (600, 300)])
async def test_fewer_connections_are_accepted_than_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, log: Log, files: int, fitting: int
) -> None:
    # A hard limit cannot be raised again.
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (500, files))
    set_to = []
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: set_to.append(limits))
    assert connections_that_fit(4000) == fitting
    assert set_to == [(files, files)]
    line = await log.line(event="the limit of open files allows fewer connections")
    assert (line["wanted"], line["connections"], line["files"]) == (4000, fitting, files)


# Before a connection is complete


async def test_900_silent_sockets_are_closed_while_others_are_served(database_url: str) -> None:
    async with running_server(database_url, handshake_timeout=3, max_connection_age=0) as server:
        with connections(server.port, 900, begins=False) as opened:
            for index, connection in enumerate(opened):
                # Nothing at all, half of the beginning, and a beginning without the first frame.
                connection.send([b"", PREFACE[:10], PREFACE][index % 3])
            for _ in range(5):
                assert await is_healthy(server.port)
            assert not any(connection.is_closed() for connection in opened)
            await eventually(lambda: all(connection.is_closed() for connection in opened))
            assert await is_healthy(server.port)


async def test_a_connection_that_is_complete_stays(database_url: str) -> None:
    async with running_server(database_url, handshake_timeout=0.5) as server:
        with connections(server.port, 2, begins=False) as (complete, silent):
            complete.begin()
            await eventually(silent.is_closed)
            assert not complete.is_closed()


async def test_a_socket_that_does_not_begin_tls_is_closed(database_url: str, tmp_path: Path) -> None:
    authority = Authority()
    files = write_files(tmp_path, authority.server())
    settings = {"tls_certificate_file": files.certificate, "tls_key_file": files.key, "handshake_timeout": 0.5}
    async with running_server(database_url, **settings) as server:
        with connections(server.port, 3, begins=False) as opened:
            # Nothing, and the beginning of a handshake.
            opened[1].send(b"\x16\x03\x01\x02\x00\x01")
            await eventually(lambda: all(connection.is_closed() for connection in opened))
        async with tls_channel(server.port, authority.pem) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            await check(b"", timeout=5)


# What a connection sends


@pytest.mark.parametrize(("size", "accepted"), [(12_000, True), (15_500, True), (16_500, False), (40_000, False)])
async def test_metadata_above_the_limit_is_always_refused(database_url: str, size: int, *, accepted: bool) -> None:
    # Without a maximum age: a call can fail when it is sent while its connection reaches it.
    async with serving_clients(database_url, max_connection_age=0) as clients:
        # gRPC's default refuses some of those that are between two limits.
        for _ in range(20):
            calling = clients.health.Check(HealthCheckRequest(), metadata=(("x-padding", "x" * size),))
            if accepted:
                assert (await calling).status == SERVING
            else:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await calling
                assert raised.value.code() == StatusCode.RESOURCE_EXHAUSTED
        assert (await clients.health.Check(HealthCheckRequest())).status == SERVING


async def test_a_client_that_pings_too_often_is_disconnected(database_url: str) -> None:
    async with running_server(database_url) as server:
        with connections(server.port, 1) as (connection,):
            connection.send(PING * 10)
            await eventually(connection.is_closed)
            assert connection.goaway
            # ENHANCE_YOUR_CALM.
            assert connection.goaway.error_code == 11
            assert b"too_many_pings" in connection.goaway.additional_data


async def test_how_often_a_client_may_ping_is_a_setting(database_url: str) -> None:
    async with running_server(database_url, min_ping_interval=0.01) as server:
        with connections(server.port, 1) as (connection,):
            for _ in range(10):
                await asyncio.sleep(0.05)
                connection.send(PING)
            await eventually(lambda: connection.is_closed() or connection.received["Ping"] >= 10)
            assert not connection.is_closed()


async def test_a_message_that_grows_when_it_is_decompressed_is_refused(database_url: str) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        before = resident_megabytes()
        # 100 MB of zeros are 100 kB.
        call: Any = clients.channel.unary_unary(GET_USER)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(bytes(100_000_000), compression=grpc.Compression.Gzip, timeout=20)
        assert raised.value.code() == StatusCode.RESOURCE_EXHAUSTED
        # The client in this process has made the 100 MB.
        assert resident_megabytes() - before < 150
        assert await is_healthy(server.port)


# Calls that wait for their clients


@pytest.mark.parametrize("accept_mode", ["calls", "listeners"])
@pytest.mark.parametrize("unfinished", ["no request", "half a request", "no reading"])
async def test_calls_whose_clients_neither_send_nor_read_are_cancelled(
    database_url: str, log: Log, unfinished: str, accept_mode: str
) -> None:
    settings = {"accept_mode": accept_mode, "pending_accepts": 1, "max_connection_age": 0}
    settings |= {"transfer_timeout": 1, "max_concurrent_calls": 20}
    async with running_server(database_url, **settings) as server, connect(server.port, own_connection=True) as clients:
        user = await clients.create_user(profile={"bio": "x" * 1000})
        # gRPC takes small responses off the server's hands, whether or not they are read. The requests of all calls fit
        # into the server's window.
        request = users_pb.BatchGetUsersRequest(ids=[user.id] * 60).SerializeToString()
        with closing(Connection(server.port, NO_WINDOW)) as connection:
            for _ in range(19):
                connection.send(unfinished_call(connection.take_stream(), request, unfinished))
            with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
                while True:
                    # One after the other until the limit is reached: the call that created the user may be counted
                    # until now, and then these take its place.
                    connection.send(unfinished_call(connection.take_stream(), request, unfinished))
                    await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
            # Health has no limit.
            assert (await clients.health.Check(HealthCheckRequest())).status == SERVING
            # A client that takes part in the connection, because gRPC closes it otherwise, and those calls with it.
            # gRPC's own loop keeps the last call that it has taken until it takes another.
            await eventually(lambda: connection.is_closed() or connection.received["RstStream"] >= 19)
            assert not connection.is_closed()
            await eventually(lambda: is_served(clients, user.id))
            assert sum(line["calls"] for line in log.lines(event=STALLED)) >= 19


def unfinished_call(stream: int, request: bytes, unfinished: str) -> bytes:
    """Return the frames of a call that waits for its client."""
    match unfinished:
        case "no request":
            return headers_frame(stream, BATCH_GET_USERS)
        case "half a request":
            return headers_frame(stream, BATCH_GET_USERS) + DataFrame(stream, grpc_message(request)[:20]).serialize()
        case _:
            return call_frames(stream, BATCH_GET_USERS, request)


async def is_served(clients: Clients, user_id: str) -> bool:
    """Return whether a call is not refused."""
    try:
        await clients.users.GetUser(users_pb.GetUserRequest(id=user_id))
    except grpc.aio.AioRpcError as error:
        assert error.code() == StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - another error is another failure
        return False
    return True


async def test_calls_that_go_on_are_not_cancelled(database_url: str, log: Log) -> None:
    async with running_server(database_url, transfer_timeout=0.2) as server, connect(server.port) as clients:
        watch = clients.users.WatchUsers(users_pb.WatchUsersRequest(now=True))
        health = clients.health.Watch(HealthCheckRequest())
        assert (await health.read()).status == SERVING
        assert await watch.read()
        # Several times what a client may take.
        await asyncio.sleep(1)
        user = await clients.create_user()
        async with asyncio.timeout(20):
            while (await read(watch)).event.user_id != user.id:
                pass
        assert not watch.done()
        assert not health.done()
        watch.cancel()
        health.cancel()
        assert not log.lines(event=STALLED)


async def read(call: Any) -> Any:
    return await call.read()


@pytest.mark.parametrize("accept_mode", ["calls", "listeners"])
async def test_calls_that_wait_for_the_database_are_not_cancelled(
    database_url: str, log: Log, accept_mode: str
) -> None:
    settings = {"transfer_timeout": 0.2, "accept_mode": accept_mode}
    async with running_server(database_url, **settings) as server, connect(server.port) as clients:
        # Several, because gRPC's own loop takes the first call of a method in either mode.
        users = [await clients.create_user() for _ in range(3)]
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            requests = [users_pb.DeactivateUserRequest(id=user.id) for user in users]
            waiting = [asyncio.ensure_future(clients.users.DeactivateUser(request)) for request in requests]
            # Several times what a client may take.
            await asyncio.sleep(1)
        assert [response.user.id for response in await asyncio.gather(*waiting)] == [user.id for user in users]
        assert not log.lines(event=STALLED)


# Floods


@asynccontextmanager
async def flooded_server(postgres_url: str, template_url: str) -> AsyncIterator[tuple[Process, Clients]]:
    """Run a server in a process of its own, whose memory is its own."""
    async with (
        cloned(postgres_url, template_url) as url,
        # Without a maximum age: a call can fail when it is sent while its connection reaches it.
        serving(url, max_connection_age=0) as process,
        connect(await process.port(), own_connection=True) as clients,
    ):
        yield process, clients


HEAD = static_block(call_headers(GET_USER))


def rapid_resets() -> Iterator[bytes]:
    """Start calls and cancel them immediately (CVE-2023-44487)."""
    for first in count(1, 200):
        yield b"".join(
            call_frames(stream, HEAD, b"") + RstStreamFrame(stream, CANCEL).serialize()
            for stream in range(first, first + 200, 2)
        )


def endless_headers() -> Iterator[bytes]:
    """Send one header block that does not end (CVE-2024-27316)."""
    yield HeadersFrame(1, HEAD).serialize()
    yield from repeat(ContinuationFrame(1, static_block([("x-a", "y" * 100)]) * 100).serialize())


def many_headers() -> Iterator[bytes]:
    """Start calls with as much metadata as there may be, and send no requests."""
    block = static_block([*call_headers(GET_USER), *((f"x-{index}", "z" * 100) for index in range(80))])
    return (headers_frame(stream, block) for stream in count(1, 2))


SETTINGS = SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 100}).serialize()
WINDOW_UPDATE = WindowUpdateFrame(0, window_increment=1).serialize()
# By what is sent: the chunks, and how many MB the memory of a server may grow when two connections send them.
FLOODS: dict[str, tuple[Callable[[], Iterable[bytes]], int]] = {
    "pings": (lambda: repeat(PING * 1000), 50),
    "settings": (lambda: repeat(SETTINGS * 1000), 50),
    "priorities": (lambda: repeat(PriorityFrame(1, stream_weight=16).serialize() * 10_000), 50),
    "window updates": (lambda: repeat(WINDOW_UPDATE * 10_000), 50),
    "empty frames": (lambda: repeat(DataFrame(1).serialize() * 10_000), 50),
    "resets": (rapid_resets, 50),
    "many headers": (many_headers, 100),
    # gRPC's limit for a header block is 16 MiB, which take three times as much memory.
    "endless headers": (endless_headers, 120),
}
CANCEL = 8
FLOOD_SECONDS = 1.5


def flood(connection: Connection, chunks: Iterable[bytes]) -> None:
    """Send chunks for some time, or until the server closes the connection or reads no more; read nothing."""
    # A server that reads no more may wait for the client to read.
    connection.socket.settimeout(2)
    end = time.monotonic() + FLOOD_SECONDS
    with suppress(OSError):
        for chunk in chunks:
            connection.send(chunk)
            if time.monotonic() > end:
                return


async def test_floods_neither_stop_other_calls_nor_take_memory(postgres_url: str, template_url: str) -> None:
    async with flooded_server(postgres_url, template_url) as (process, clients):
        user = await clients.create_user()
        request = users_pb.GetUserRequest(id=user.id)
        for _ in range(200):
            await clients.users.GetUser(request)
        for name, (chunks, megabytes) in FLOODS.items():
            before, highest = resident_megabytes(process.pid), 0.0
            with connections(await process.port(), 2) as opened:
                flooding = asyncio.gather(*(asyncio.to_thread(flood, each, chunks()) for each in opened))
                while not flooding.done():
                    # A new connection would be refused by a server that accepts none.
                    assert (await clients.users.GetUser(request, timeout=5)).user == user, name
                    assert await is_healthy(await process.port()), name
                    highest = max(highest, resident_megabytes(process.pid))
                await flooding
            assert highest - before < megabytes, name
        assert process.running
