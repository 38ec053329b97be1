"""Calls leave no reference cycles: a garbage collection would delay all other calls."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from types import FunctionType
from typing import Any
from uuid import UUID

import grpc
import pytest
import uvloop
from commerce.orders.v1.order_service_pb2 import ConfirmOrderRequest, CreateOrderRequest, WatchOrdersRequest
from commerce.users.v1.user_service_pb2 import CreateUserRequest, GetUserRequest

from tests.support.clients import Clients, new_order, new_user
from tests.support.locks import until_blocked
from tests.support.methods import METHODS, call, call_bytes
from tests.support.passwords import PASSWORD
from tests.support.requests import GOOD_REQUESTS
from tests.support.servers import OwnServer, own_server
from tests.support.waiting import eventually

Calls = Callable[[], Awaitable[None]]


class Observed:
    """A server in this process, and the garbage of its calls.

    On the kind of event loop that serves: asyncio's own keeps a timer that was cancelled, with all that it would need.
    """

    def __init__(self, runner: asyncio.Runner, own: OwnServer) -> None:
        self.run = runner.run
        self.clients: Clients = own.clients
        self.connection = own.connection
        self._tasks_when_idle = runner.run(_tasks())

    def good_requests(self, method: str, count: int) -> list[Any]:
        """Build this many valid requests for a method."""

        async def make() -> list[Any]:
            return [await GOOD_REQUESTS[method](self.clients) for _ in range(count)]

        return self.run(make())

    def found_after(self, calls: Calls) -> Counter[str]:
        """Return the number of objects of each type that only the cycle collector frees after these calls."""
        self.run(self._idle())
        found: Counter[str] = Counter()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            self.run(self._ended(calls))
            gc.collect()
            found.update(_name(left) for left in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        return found

    async def _ended(self, calls: Calls) -> None:
        await calls()
        await self._idle()

    async def _idle(self) -> None:
        async def idle() -> bool:
            return await _tasks() <= self._tasks_when_idle

        await eventually(idle)


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def _name(left: Any) -> str:
    """Return the name of a function, with its module, or else that of an object's type."""
    named = left if isinstance(left, FunctionType) else type(left)
    return f"{named.__module__}.{named.__qualname__}"


@pytest.fixture(scope="module")
def server(postgres_url: str, template_url: str) -> Iterator[Observed]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = own_server(postgres_url, template_url)
        own = runner.run(serving.__aenter__())
        try:
            yield Observed(runner, own)
        finally:
            runner.run(serving.__aexit__(None, None, None))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_call_leaves_no_cycles_of_ours(server: Observed, method: str) -> None:
    requests = server.good_requests(method, 3)

    async def calls() -> None:
        for request in requests:
            await call(server.clients.channel, method, request)

    found = server.found_after(calls)
    # SQLAlchemy's statement objects have cycles, which include their parameters.
    assert not {name for name in found if name.startswith(("service.", "commerce."))}, found


@pytest.mark.optimizations
def test_most_calls_leave_no_cycles_of_grpcs(server: Observed) -> None:
    count = 100
    requests = server.good_requests("GetUser", count)

    async def calls() -> None:
        for request in requests:
            await call(server.clients.channel, "GetUser", request)

    found = server.found_after(calls)
    # gRPC's own loop leaves one for each call that it accepts: as few as we have pending accepts.
    assert found["grpc._cython.cygrpc._HandlerCallDetails"] < count / 10, found


NOBODY = str(UUID(int=1))
# A request for each path that a failure can take, and its code.
REFUSED: dict[str, tuple[str, bytes, grpc.StatusCode]] = {
    "malformed": ("GetUser", b"not a message", grpc.StatusCode.INVALID_ARGUMENT),
    "invalid": ("CreateOrder", b"", grpc.StatusCode.INVALID_ARGUMENT),
    "not found by a read": ("GetUser", GetUserRequest(id=NOBODY).SerializeToString(), grpc.StatusCode.NOT_FOUND),
    "not found by a write": (
        "ConfirmOrder",
        ConfirmOrderRequest(id=NOBODY).SerializeToString(),
        grpc.StatusCode.NOT_FOUND,
    ),
    "no such user": (
        "CreateOrder",
        CreateOrderRequest(order=new_order(NOBODY)).SerializeToString(),
        grpc.StatusCode.NOT_FOUND,
    ),
    # On the wire, a stream of one message equals a unary request.
    "a stream of responses": (
        "WatchOrders",
        WatchOrdersRequest(cursor="none of ours").SerializeToString(),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "a stream of requests": ("ImportUsers", b"not a message", grpc.StatusCode.INVALID_ARGUMENT),
}


def assert_nothing_of_calls(found: Counter[str]) -> None:
    """Fail if garbage belongs to calls, except for what gRPC's own loop leaves (see above)."""
    of_calls = ("service.", "commerce.", "builtins.traceback", "grpc._cython.cygrpc.RPCState")
    assert not {name for name in found if name.startswith(of_calls)}, found


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_call_leaves_no_cycles(server: Observed, case: str) -> None:
    method, request, code = REFUSED[case]

    async def calls() -> None:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call_bytes(server.clients.channel, method, request)
            assert refused.value.code() == code
            # Its traceback refers to this frame: a cycle that the test makes.
            del refused

    assert_nothing_of_calls(server.found_after(calls))


def test_a_call_that_a_constraint_refuses_leaves_no_cycles(server: Observed) -> None:
    user = server.run(server.clients.create_user())
    request = CreateUserRequest(user=new_user(email=user.email), password=PASSWORD)

    async def calls() -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.clients.users.CreateUser(request)
        assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
        del refused

    assert_nothing_of_calls(server.found_after(calls))


def test_a_call_that_its_caller_leaves_leaves_no_cycles(server: Observed) -> None:
    user = server.run(server.clients.create_user())

    async def calls() -> None:
        async with server.connection.transaction():
            await server.connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user.id))
            left = server.clients.orders.CreateOrder(CreateOrderRequest(order=new_order(user.id)))
            await until_blocked(server.connection)
            left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left

    assert_nothing_of_calls(server.found_after(calls))


def test_an_ended_call_is_freed_before_the_next(server: Observed) -> None:
    def kept() -> int:
        return sum(_name(alive) == "grpc._cython.cygrpc.RPCState" for alive in gc.get_objects())

    async def calls() -> None:
        for _ in range(50):
            with pytest.raises(grpc.aio.AioRpcError):
                await call_bytes(server.clients.channel, "GetOrder", b"not a message")

    before = kept()
    server.found_after(calls)
    # gRPC's own loop keeps a reference to the last call that it accepted.
    assert kept() <= before + 1
