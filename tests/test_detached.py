import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from service.detached import Detached
from tests.echo import Log, logged
from tests.faults import eventually

LOST = "internal error after the caller had gone"
# Ways to have work done.
Way = Callable[[Detached, Any], Awaitable[Any]]


async def run(detached: Detached, work: Any) -> Any:
    return await detached.run(work)


async def start_and_wait(detached: Detached, work: Any) -> Any:
    return await detached.result(detached.start(work))


every_way = pytest.mark.parametrize("way", [run, start_and_wait])


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as log:
        yield log


class Work:
    """Waits until it may go on, and then fails, if it is told how."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.go_on = asyncio.Event()
        self.ended = False
        self._failure = failure

    async def __call__(self) -> str:
        await self.go_on.wait()
        self.ended = True
        if self._failure:
            raise self._failure
        return "done"


def detached() -> Detached:
    return Detached(lambda error: isinstance(error, LookupError))


@every_way
async def test_a_caller_gets_what_the_work_returns(way: Way) -> None:
    work = Work()
    work.go_on.set()
    assert await way(detached(), work()) == "done"


@every_way
@pytest.mark.parametrize("failure", [ValueError(), LookupError(), asyncio.CancelledError()], ids=repr)
async def test_a_caller_gets_what_the_work_raises(way: Way, log: Log, failure: BaseException) -> None:
    work = Work(failure)
    work.go_on.set()
    with pytest.raises(type(failure)):
        await way(detached(), work())
    await asyncio.sleep(0)
    assert log.lines(event=LOST) == []


@every_way
@pytest.mark.parametrize(
    ("failure", "lines"), [(None, 0), (LookupError(), 0), (ValueError(), 1), (asyncio.CancelledError(), 0)], ids=repr
)
async def test_work_goes_on_when_its_caller_goes(way: Way, log: Log, failure: BaseException | None, lines: int) -> None:
    work, running = Work(failure), detached()
    caller = asyncio.ensure_future(way(running, work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not work.ended
    draining = asyncio.ensure_future(running.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    work.go_on.set()
    await draining
    assert work.ended
    await eventually(lambda: len(log.lines(event=LOST)) == lines)
