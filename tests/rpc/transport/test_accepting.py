"""Every accept mode (`service.rpc.transport.accepting`) with one and with many pending accepts."""

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import commerce.orders.v1.order_service_pb2 as orders_pb
import grpc
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from commerce.users.v1.user_service_pb2 import ImportUsersRequest
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server

from service.rpc.interceptors.access_log import AccessLogInterceptor
from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.interceptors.errors import ErrorInterceptor
from service.rpc.transport.accepting import TESTED_GRPC_VERSIONS, AcceptingServer, AcceptMode
from tests.support.echo import ARITIES, SERVICE, Echo, call
from tests.support.failures import ENDED_WHILE_SENDING, fails
from tests.support.logs import Log
from tests.support.servers import serving_clients
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

# Each test names the accept mode, so the setting changes none.
pytestmark = pytest.mark.optimizations

# The accept mode, and the number of pending accepts.
Way = tuple[AcceptMode, int]
WAYS: list[Way] = [("calls", 1), ("calls", 16), ("listeners", 1), ("listeners", 4)]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
every_arity = pytest.mark.parametrize("arity", ARITIES)
# Concurrent calls: enough for every pending accept to get some.
MANY = 40
# More than any test makes.
MAX_CALLS = 4000
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
# Each channel has its own connection, which the kernel assigns to one of the listeners.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
# After GOAWAY gRPC closes a connection with its last call. Data that a client sends at that moment turns the close into
# a reset, which discards answers that the kernel has not sent yet. A bandwidth probe is sent just then, after answers.
NO_PROBE = ("grpc.http2.bdp_probe", 0)


class Served:
    """A server of the echo service and of health, and a channel to it."""

    def __init__(self, server: AcceptingServer, port: int, health: aio.HealthServicer, echo: Echo) -> None:
        self.server = server
        self.port = port
        self.health = health
        self.echo = echo
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[*OWN_CONNECTION, NO_PROBE])


def make_server(way: Way, echo: Echo, health: aio.HealthServicer, *, max_calls: int = MAX_CALLS) -> AcceptingServer:
    methods = InterceptedMethods([AccessLogInterceptor(), ErrorInterceptor()])
    methods.add_registered_method_handlers(SERVICE, echo.handlers())
    methods.add(add_HealthServicer_to_server, health)
    accept_mode, pending_accepts = way
    return AcceptingServer(
        methods,
        [],
        accept_mode=accept_mode,
        pending_accepts=pending_accepts,
        max_calls=max_calls,
        reuse_port=False,
    )


@asynccontextmanager
async def serving(way: Way, port: int = 0, *, max_calls: int = MAX_CALLS) -> AsyncIterator[Served]:
    echo, health = Echo(), aio.HealthServicer()
    server = make_server(way, echo, health, max_calls=max_calls)
    served = Served(server, server.listen("127.0.0.1", port), health, echo)
    await server.start()
    try:
        async with served.channel:
            yield served
    finally:
        await server.stop(0)


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(map(str, way)))
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with serving(request.param) as served:
        yield served


class Held:
    """Makes calls of the echo service wait until they are released."""

    def __init__(self, echo: Echo) -> None:
        self.waiting = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        echo.act = self._wait

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    async def until(self, count: int) -> None:
        """Wait until this many calls wait."""
        await eventually(lambda: self.waiting == count)


def listening_sockets(port: int) -> int:
    """Return how many sockets of this machine listen on a port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    return sum(line[3] == "0A" and line[1].endswith(f":{port:04X}") for line in lines)


@pytest.mark.parametrize(
    ("arity", "sent", "answered"),
    [
        ("UnaryUnary", ["one"], ["one"]),
        ("UnaryStream", ["one"], ["one", "one", "one"]),
        ("StreamUnary", ["one", "two", "three"], ["one-two-three"]),
        ("StreamStream", ["one", "two", "three"], ["one", "two", "three"]),
    ],
)
async def test_messages_of_every_arity_pass(served: Served, arity: str, sent: list[str], answered: list[str]) -> None:
    for _ in range(3):
        assert await call(served.channel, arity, *sent) == answered


async def test_each_of_many_callers_gets_its_own_answer(served: Served) -> None:
    async with AsyncExitStack() as stack:
        target = f"127.0.0.1:{served.port}"
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OWN_CONNECTION)) for _ in range(8)
        ]
        names = [f"name-{number}" for number in range(400)]
        calls = [call(channels[index % 8], "UnaryUnary", name) for index, name in enumerate(names)]
        assert await asyncio.gather(*calls) == [[name] for name in names]


@every_arity
async def test_all_calls_run_concurrently(served: Served, arity: str) -> None:
    held = Held(served.echo)
    calls = [asyncio.ensure_future(call(served.channel, arity, "one")) for _ in range(MANY)]
    await held.until(MANY)
    held.go.set()
    await asyncio.gather(*calls)


@every_arity
async def test_a_cancellation_reaches_the_method(served: Served, log: Log, arity: str) -> None:
    held = Held(served.echo)
    calls = [asyncio.ensure_future(call(served.channel, arity, "one")) for _ in range(MANY)]
    await held.until(MANY)
    for calling in calls:
        calling.cancel()
    await eventually(lambda: held.cancelled == MANY)
    cancelled = {"event": "call", "method": f"/{SERVICE}/{arity}", "code": "CANCELLED"}
    await eventually(lambda: len(log.lines(**cancelled)) == MANY)
    # And the next call succeeds.
    held.go.set()
    await call(served.channel, arity, "one")


@every_arity
async def test_a_deadline_ends_the_method(served: Served, log: Log, arity: str) -> None:
    held = Held(served.echo)
    calls = [call(served.channel, arity, "one", seconds=0.5) for _ in range(MANY)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {error.code() for error in ended if isinstance(error, grpc.aio.AioRpcError)} == {
        StatusCode.DEADLINE_EXCEEDED
    }
    begun = held.waiting + held.cancelled
    await eventually(lambda: held.cancelled == begun > 0)
    await eventually(lambda: len(log.lines(event="call", code="CANCELLED")) == begun)


async def test_a_deadline_that_its_caller_forgets_ends_the_method(served: Served, log: Log) -> None:
    held = Held(served.echo)
    # gRPC's clients enforce a deadline themselves; this client only sends it.
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(forgetful_call(f"/{SERVICE}/UnaryUnary", "2S"))
    await held.until(1)
    await eventually(lambda: held.cancelled == 1)
    await eventually(lambda: len(log.lines(event="call", code="CANCELLED")) == 1)
    writer.close()


def forgetful_call(path: str, timeout: str) -> bytes:
    """Return the bytes that open an HTTP/2 connection and call a method with an empty message (RFC 9113, RFC 7541)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": timeout,
    }
    block = b"".join(
        b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in header) for header in headers.items()
    )
    settings, call_headers, call_data = (4, 0, 0, b""), (1, 4, 1, block), (0, 1, 1, bytes(5))
    frames = (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
        for kind, flags, stream, payload in (settings, call_headers, call_data)
    )
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames)


async def test_a_method_knows_its_callers_deadline_and_metadata(served: Served) -> None:
    await call(served.channel, "UnaryUnary", "one", seconds=1000)
    assert served.echo.context
    # gRPC rounds it.
    assert 900 < served.echo.context.time_remaining() < 1100
    unary: Any = served.channel.unary_unary(f"/{SERVICE}/UnaryUnary")
    answer = unary(b"\x1a\x03one", metadata=(("x-request-id", "abc"),))
    await answer
    assert served.echo.context.time_remaining() is None
    assert ("x-request-id", "abc") in tuple(served.echo.context.invocation_metadata() or ())
    assert ("x-request-id", "abc") in tuple(await answer.trailing_metadata())


@pytest.mark.parametrize("path", [f"/{SERVICE}/Missing", "/commerce.testing.v1.NoService/UnaryUnary", "/"])
async def test_a_missing_service_or_method_is_unimplemented(served: Served, path: str) -> None:
    missing: Any = served.channel.unary_unary(path)
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await missing(b"")
        assert raised.value.code() == StatusCode.UNIMPLEMENTED


async def test_health_is_checked_and_watched(served: Served) -> None:
    stub: Any = HealthStub(served.channel)
    await served.health.set("readiness", SERVING)
    request = HealthCheckRequest(service="readiness")
    assert (await stub.Check(request)).status == SERVING
    watches = [stub.Watch(request) for _ in range(3)]
    assert [(await watch.read()).status for watch in watches] == [SERVING] * 3
    await served.health.set("readiness", NOT_SERVING)
    assert [(await watch.read()).status for watch in watches] == [NOT_SERVING] * 3
    assert (await stub.Check(request)).status == NOT_SERVING
    for watch in watches:
        watch.cancel()


# The limit on calls in flight


@every_way
async def test_calls_of_every_arity_above_the_limit_are_refused_and_health_is_answered(way: Way, log: Log) -> None:
    async with serving(way, max_calls=8) as served:
        health: Any = HealthStub(served.channel)
        watch = health.Watch(HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        held = Held(served.echo)
        calls = [asyncio.ensure_future(call(served.channel, arity, "one")) for arity in ARITIES for _ in range(2)]
        await held.until(8)
        refused: Counter[str] = Counter()
        for arity in ARITIES:
            for _ in range(10):
                with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED") as failure:
                    await call_counted(served.channel, arity, refused)
                assert RetryInfo in failure.details
                assert failure.trailers["x-request-id"]
        # They are not logged one by one.
        await eventually(lambda: sum(line["count"] for line in log.lines(event="refused calls")) == refused.total())
        for _ in range(30):
            assert (await health.Check(HealthCheckRequest())).status == SERVING
        # One call ends: one more may begin.
        calls.pop().cancel()
        await held.until(7)
        await eventually(lambda: log.lines(event="call", code="CANCELLED"))
        calls.append(asyncio.ensure_future(until_accepted(served.channel)))
        await held.until(8)
        held.go.set()
        assert all(await asyncio.gather(*calls))
        await asyncio.gather(*(call(served.channel, "UnaryUnary", "three") for _ in range(8)))
        watch.cancel()


async def call_counted(channel: grpc.aio.Channel, arity: str, counted: Counter[str]) -> None:
    """Count a call and make it, again if gRPC's client fails to send a request before it has read the status."""
    while True:
        counted[arity] += 1
        try:
            await call(channel, arity, "two")
        except grpc.aio.AioRpcError as error:
            if error.details() != ENDED_WHILE_SENDING:
                raise
        else:
            return


async def until_accepted(channel: grpc.aio.Channel) -> list[str]:
    """Call until the call is not refused: the end of another call is seen before its place is free."""
    while True:
        try:
            return await call(channel, "UnaryUnary", "more")
        except grpc.aio.AioRpcError as error:
            if error.code() != StatusCode.RESOURCE_EXHAUSTED:
                raise


@every_way
async def test_a_call_is_refused_before_its_request_has_come(way: Way) -> None:
    async with serving(way, max_calls=1) as served:
        held = Held(served.echo)
        # It never sends a request.
        stub: Any = served.channel.stream_unary(f"/{SERVICE}/UnaryUnary")
        first = asyncio.ensure_future(call(served.channel, "UnaryUnary", "one"))
        await held.until(1)
        waiting = stub()
        with fails(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"):
            await waiting
        held.go.set()
        assert await first == ["one"]


# Stopping


@pytest.fixture
async def lost() -> AsyncIterator[list[dict[str, Any]]]:
    """The failures that only the event loop and the garbage collector report, such as unawaited coroutines."""
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    yield told
    gc.collect()
    loop.set_exception_handler(before)


@every_way
@every_arity
async def test_a_stop_lets_running_calls_end_and_refuses_others(
    way: Way, arity: str, lost: list[dict[str, Any]], log: Log
) -> None:
    before = asyncio.all_tasks()
    async with serving(way) as served:
        held = Held(served.echo)
        calls = [asyncio.ensure_future(call(served.channel, arity, "one")) for _ in range(MANY)]
        await held.until(MANY)
        async with asyncio.timeout(20):
            stopping = asyncio.ensure_future(served.server.stop(600))
            await eventually(lambda: listening_sockets(served.port) == 0)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=OWN_CONNECTION) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(channel, arity, "two")
            assert raised.value.code() == StatusCode.UNAVAILABLE
            assert not stopping.done()
            held.go.set()
            answers = await asyncio.gather(*calls)
            # As soon as they have ended.
            await stopping
    assert all(answers)
    await eventually(lambda: len(log.lines(event="call", code="OK")) == MANY)
    await eventually(lambda: asyncio.all_tasks() <= before)
    gc.collect()
    assert not lost


@every_way
@every_arity
async def test_a_stop_aborts_calls_that_exceed_the_grace_period(
    way: Way, arity: str, lost: list[dict[str, Any]], log: Log
) -> None:
    before = asyncio.all_tasks()
    async with serving(way) as served:
        held = Held(served.echo)
        calls = [asyncio.ensure_future(call(served.channel, arity, "one")) for _ in range(MANY)]
        await held.until(MANY)
        async with asyncio.timeout(20):
            await served.server.stop(0.2)
            ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {error.code() for error in ended if isinstance(error, grpc.aio.AioRpcError)} <= {
        StatusCode.UNAVAILABLE,
        StatusCode.CANCELLED,
    }
    assert len(ended) == MANY
    await eventually(lambda: held.cancelled == MANY)
    await eventually(lambda: len(log.lines(event="call", code="CANCELLED")) == MANY)
    await eventually(lambda: asyncio.all_tasks() <= before)
    gc.collect()
    assert not lost


@every_way
async def test_a_server_without_calls_leaves_nothing_behind(way: Way, lost: list[dict[str, Any]]) -> None:
    before = asyncio.all_tasks()
    async with serving(way) as served, asyncio.timeout(10):
        await served.server.stop(600)
        # Nor anything that ends a little later.
        assert asyncio.all_tasks() <= before
    assert listening_sockets(served.port) == 0
    gc.collect()
    assert not lost


# The port


@pytest.mark.parametrize("second", WAYS, ids=lambda way: "-".join(map(str, way)))
@pytest.mark.parametrize("first", WAYS, ids=lambda way: "-".join(map(str, way)))
async def test_a_port_that_another_server_has_is_refused(first: Way, second: Way) -> None:
    async with serving(first) as served:
        server = make_server(second, Echo(), aio.HealthServicer())
        with pytest.raises(OSError, match=r"in use|cannot listen"):
            server.listen("127.0.0.1", served.port)
        await server.stop(0)
        # The first server still serves.
        assert await call(served.channel, "UnaryUnary", "one") == ["one"]
    # The connections on this port have just been closed.
    async with serving(second, served.port) as again:
        assert await call(again.channel, "UnaryUnary", "two") == ["two"]


@every_way
@pytest.mark.parametrize("reuse_port", [False, True], ids=["", "to_be_shared"])
async def test_a_port_that_another_program_has_is_refused(way: Way, *, reuse_port: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port) as listener:
        server = make_server(way, Echo(), aio.HealthServicer())
        with pytest.raises(OSError, match=r"in use|cannot listen"):
            server.listen("127.0.0.1", listener.getsockname()[1])
        await server.stop(0)


@every_way
@pytest.mark.parametrize("host", ["localhost", "::1", "0.0.0.0", "::"])  # noqa: S104 - every form of an address
async def test_every_form_of_an_address_is_listened_on(way: Way, host: str) -> None:
    server = make_server(way, Echo(), aio.HealthServicer())
    port = server.listen(host, 0)
    await server.start()
    try:
        target = f"[::1]:{port}" if ":" in host else f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(target) as channel:
            assert await call(channel, "UnaryUnary", "one") == ["one"]
    finally:
        await server.stop(0)


async def test_servers_that_agree_on_it_share_a_port() -> None:
    methods = InterceptedMethods([])
    methods.add_registered_method_handlers(SERVICE, Echo().handlers())
    make: Callable[[AcceptMode], AcceptingServer] = lambda accept_mode: AcceptingServer(  # noqa: E731 - annotated
        methods, [], accept_mode=accept_mode, pending_accepts=2, max_calls=MAX_CALLS, reuse_port=True
    )
    first, second = make("calls"), make("listeners")
    port = first.listen("127.0.0.1", 0)
    assert second.listen("127.0.0.1", port) == port
    assert listening_sockets(port) == 3
    for server in (first, second):
        await server.stop(0)


# The accept mode in use


async def test_the_installed_release_of_grpcio_has_been_tested_with_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    # Check a new release of grpcio, because `service.rpc.transport.accepting` uses its private interface; then add it
    # to TESTED_GRPC_VERSIONS.
    assert grpc.__version__ in TESTED_GRPC_VERSIONS
    async with serving(("auto", 3)) as served:
        assert served.server.accept_mode == "calls"
        assert listening_sockets(served.port) == 1
        assert await call(served.channel, "UnaryUnary", "one") == ["one"]
    monkeypatch.setattr("service.rpc.transport.accepting.TESTED_GRPC_VERSIONS", frozenset({"1.0.0"}))
    async with serving(("auto", 3)) as served:
        assert served.server.accept_mode == "listeners"
        assert listening_sockets(served.port) == 3
        assert await call(served.channel, "UnaryUnary", "one") == ["one"]


# The services on every accept mode


@every_way
async def test_the_services_work_whichever_way_calls_are_taken(database_url: str, way: Way) -> None:
    accept_mode, pending_accepts = way
    async with (
        serving_clients(database_url, accept_mode=accept_mode, pending_accepts=pending_accepts) as clients,
    ):
        async with watch_orders(clients, now=True) as watch:
            await watch.checkpoint()
            user = await clients.create_user()
            orders = await asyncio.gather(*(clients.create_order(user.id) for _ in range(40)))
            gets = [clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id)) for order in orders]
            assert [answer.order for answer in await asyncio.gather(*gets)] == orders
            confirms = [clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id)) for order in orders]
            assert {answer.order.etag for answer in await asyncio.gather(*confirms)} == {"v2"}
            events = await watch.events(80)
        assert len({event.id for event in events}) == 80
        exports = clients.orders.ExportOrders(orders_pb.ExportOrdersRequest())
        assert {order.id async for page in exports for order in page.orders} == {order.id for order in orders}
        row = UserImportRow(email=user.email, username=user.username)
        imported = [ImportUsersRequest(config=UserImportConfig()), *[ImportUsersRequest(row=row)] * 3]
        assert (await clients.users.ImportUsers(iter(imported))).skipped_count == 3
