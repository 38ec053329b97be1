import asyncio
from typing import Any, cast

import pytest

from service.application.ports.errors import Overloaded
from service.rpc.identity.caller import Caller
from service.rpc.interceptors.unread_responses import UnreadResponsesInterceptor
from service.rpc.methods import Method
from tests.support.callers import called_by
from tests.support.methods import ALL_METHODS, path_of

CONTEXT = cast("Any", None)


def method_named(name: str) -> Method:
    method = ALL_METHODS[name]
    return Method(path_of(name), method.client_streaming, method.server_streaming, method)


async def list_nothing(request: object, context: object) -> bytes:  # noqa: ARG001 - the names of all calls
    return bytes(30_000)


async def test_a_caller_who_reads_nothing_leaves_room_for_others() -> None:
    read = UnreadResponsesInterceptor(150_000).wrap(method_named("ListUsers"), list_nothing)
    received = asyncio.Event()
    refused: list[str] = []

    async def call(name: str) -> None:
        with called_by(Caller(name)):
            try:
                await read(None, CONTEXT)
            except Overloaded:
                refused.append(name)
        # As gRPC's task does, until the client has received the response.
        await received.wait()

    calls = [asyncio.create_task(call(name)) for name in ("one", "one", "one", "other", "other", "third", "third")]
    await asyncio.sleep(0)
    assert refused == ["one", "third"]
    received.set()
    await asyncio.wait(calls)
    # Nothing is counted any more.
    calls = [asyncio.create_task(call("one")) for _ in range(2)]
    await asyncio.wait(calls)
    assert refused == ["one", "third"]


@pytest.mark.parametrize("name", ["GetOrder", "ListOrders", "GetOrderStatistics", "CreateOrder"])
def test_responses_that_can_be_large_are_counted(name: str) -> None:
    assert UnreadResponsesInterceptor(1).wrap(method_named(name), list_nothing) is not list_nothing


@pytest.mark.parametrize("name", ["GetUser", "CreateUser", "VerifyPassword", "ExportOrders", "ImportUsers"])
def test_small_responses_and_streams_are_not_counted(name: str) -> None:
    assert UnreadResponsesInterceptor(1).wrap(method_named(name), list_nothing) is list_nothing
