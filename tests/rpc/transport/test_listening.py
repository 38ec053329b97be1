"""The Unix socket of a server, and leaving it."""

import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from grpc import StatusCode

from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.transport.accepting import AcceptingServer, AcceptMode
from service.rpc.transport.listening import UnixSocket, open_connections, stop_listening
from tests.support.echo import SERVICE, Echo, call
from tests.support.waiting import eventually

Way = tuple[AcceptMode, int]
WAYS: list[Way] = [("calls", 16), ("listeners", 1), ("listeners", 4)]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def make_server(way: Way = ("calls", 16), *, reuse_port: bool = False) -> AcceptingServer:
    methods = InterceptedMethods([])
    methods.add_registered_method_handlers(SERVICE, Echo().handlers())
    accept_mode, pending_accepts = way
    return AcceptingServer(
        methods, [], accept_mode=accept_mode, pending_accepts=pending_accepts, max_calls=100, reuse_port=reuse_port
    )


@asynccontextmanager
async def serving(
    path: Path, way: Way = ("calls", 16), *, mode: int = 0o600, reuse_port: bool = False
) -> AsyncIterator[UnixSocket]:
    server, unix_socket = make_server(way, reuse_port=reuse_port), UnixSocket(path, mode)
    server.listen_on_socket(unix_socket)
    await server.start()
    try:
        yield unix_socket
    finally:
        unix_socket.remove()
        await server.stop(0)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{path}", options=OWN_CONNECTION) as channel:
        yield channel


async def answers(path: Path) -> bool:
    """Return whether a call on a new connection is answered."""
    async with connected(path) as channel:
        try:
            return await call(channel, "UnaryUnary", "one", seconds=5) == ["one"]
        except grpc.aio.AioRpcError as error:
            assert error.code() == StatusCode.UNAVAILABLE  # noqa: PT017 - another error is another failure
            return False


@pytest.fixture
def path() -> Iterator[Path]:
    """A path for a socket in a folder of its own; `tmp_path` may be too long for one."""
    with TemporaryDirectory() as folder:
        yield Path(folder) / "commerce.sock"


@every_way
async def test_calls_come_through_a_unix_socket_that_is_removed_in_the_end(way: Way, path: Path) -> None:
    async with serving(path, way):
        for _ in range(3):
            assert await answers(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_socket_has_exactly_these_permissions(path: Path, mode: int) -> None:
    async with serving(path, mode=mode):
        assert permissions(path) == mode


async def test_a_socket_that_a_dead_server_left_behind_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    async with serving(path):
        assert await answers(path)


@pytest.mark.parametrize("mode", [0o600, 0o000])
async def test_a_socket_that_another_server_listens_on_is_refused(path: Path, mode: int) -> None:
    async with serving(path, mode=mode):
        server = make_server()
        with pytest.raises(OSError, match="another server listens on it"):
            server.listen_on_socket(UnixSocket(path, 0o600))
        await server.stop(0)
        allow(path)
        assert await answers(path)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def allow(path: Path) -> None:
    path.chmod(0o600)


async def test_a_server_that_may_share_it_takes_it_over_and_keeps_it(path: Path) -> None:
    async with serving(path, reuse_port=True) as first, connected(path) as old:
        assert await call(old, "UnaryUnary", "one") == ["one"]
        async with serving(path, reuse_port=True) as second:
            # Each of these connects to the second.
            assert await answers(path)
            assert open_connections(str(first.bound)) == 1
            assert await call(old, "UnaryUnary", "two") == ["two"]
            # The server that is replaced does not take the path along.
            first.remove()
            assert await answers(path)
            stop_listening(str(first.bound))
            assert await answers(path)
            second.remove()
            assert list(path.parent.iterdir()) == []


def test_something_else_at_the_path_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="something else has this name"):
        UnixSocket(path, 0o600).listen(pytest.fail, replace=True)
    assert path.read_text() == "precious"


async def test_a_path_that_is_too_long_is_refused_and_the_longest_works(path: Path) -> None:
    longest = path.with_name("x" * (107 - len(str(path.parent)) - 1))
    with pytest.raises(OSError, match="the path is too long: it may have 107 bytes"):
        UnixSocket(longest.with_name(f"{longest.name}x"), 0o600).listen(pytest.fail, replace=False)
    async with serving(longest):
        assert await answers(longest)


async def test_a_folder_that_does_not_exist_is_refused(path: Path) -> None:
    server = make_server()
    with pytest.raises(OSError, match="the folder does not exist"):
        server.listen_on_socket(UnixSocket(path.parent / "missing" / "commerce.sock", 0o600))
    await server.stop(0)


@every_way
async def test_open_connections_are_served_after_leaving_the_socket(way: Way, path: Path) -> None:
    async with serving(path, way) as unix_socket, connected(path) as channel:
        place = str(unix_socket.bound)
        assert open_connections(place) == 0
        assert await call(channel, "UnaryUnary", "one") == ["one"]
        assert open_connections(place) == 1
        unix_socket.remove()
        stop_listening(place)
        assert not await answers(path)
        assert await call(channel, "UnaryUnary", "two") == ["two"]
        await channel.close()
        await eventually(lambda: open_connections(place) == 0)


async def test_connections_to_other_places_are_not_counted(path: Path, tmp_path: Path) -> None:
    async with (
        serving(path) as unix_socket,
        serving(tmp_path / "other.sock") as other,
        connected(other.path) as channel,
    ):
        assert await call(channel, "UnaryUnary", "one") == ["one"]
        assert open_connections(str(unix_socket.bound)) == 0
        assert open_connections(str(unix_socket.bound), str(other.bound)) == 1
