"""That what a call leaves is freed at once: a search for cycles takes time from all other calls."""

import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import pytest

from tests.wire import GOOD_REQUESTS, METHODS, OwnServer, call, own_server


@pytest.fixture(scope="module")
async def own(postgres_url: str, template_url: str) -> AsyncIterator[OwnServer]:
    async with own_server(postgres_url, template_url) as own:
        yield own


def name_of(left: Any) -> str:
    """Return the name of a function, with its module, or else that of an object's type."""
    named = left if isinstance(left, FunctionType) else type(left)
    return f"{named.__module__}.{named.__qualname__}"


@contextmanager
def cycles() -> Iterator[Counter[str]]:
    """Count what only a search for cycles finds after the block, by its types."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(name_of(left) for left in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_a_call_leaves_no_cycles_of_ours(own: OwnServer, method: str) -> None:
    requests = [await GOOD_REQUESTS[method](own.clients) for _ in range(3)]
    with cycles() as found:
        for request in requests:
            await call(own.clients.channel, method, request)
    # The statements that SQLAlchemy makes for a call have some, with what they are given.
    assert not {name for name in found if name.startswith(("service.", "commerce."))}, found


async def test_most_calls_leave_no_cycles_of_grpcs(own: OwnServer) -> None:
    request = await GOOD_REQUESTS["GetUser"](own.clients)
    calls = 100
    with cycles() as found:
        for _ in range(calls):
            await call(own.clients.channel, "GetUser", request)
    # Each that its own loop takes, which are one for each of ours that waits for a call.
    assert found["grpc._cython.cygrpc._HandlerCallDetails"] < calls / 10, found
