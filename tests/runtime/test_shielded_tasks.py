import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.runtime.shielded_tasks import ShieldedTasks
from tests.support.logs import Log
from tests.support.waiting import eventually

LOST = "internal error after the caller stopped waiting"
# The two ways to run work.
Way = Callable[[ShieldedTasks, Any], Awaitable[Any]]


async def run(shielded_tasks: ShieldedTasks, work: Any) -> Any:
    return await shielded_tasks.run(work)


async def start_and_wait(shielded_tasks: ShieldedTasks, work: Any) -> Any:
    return await shielded_tasks.result(shielded_tasks.start(work))


every_way = pytest.mark.parametrize("way", [run, start_and_wait])


class Work:
    """Work that waits until it may go on, and then fails if it was given an error."""

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


def shielded_tasks() -> ShieldedTasks:
    return ShieldedTasks(lambda error: isinstance(error, LookupError))


@every_way
async def test_a_caller_gets_the_result_of_the_work(way: Way) -> None:
    work = Work()
    work.go_on.set()
    assert await way(shielded_tasks(), work()) == "done"


@every_way
@pytest.mark.parametrize("failure", [ValueError(), LookupError(), asyncio.CancelledError()], ids=repr)
async def test_a_caller_gets_the_exception_of_the_work(way: Way, log: Log, failure: BaseException) -> None:
    work = Work(failure)
    work.go_on.set()
    with pytest.raises(type(failure)):
        await way(shielded_tasks(), work())
    await asyncio.sleep(0)
    assert log.lines(event=LOST) == []


@every_way
@pytest.mark.parametrize(
    ("failure", "lines"), [(None, 0), (LookupError(), 0), (ValueError(), 1), (asyncio.CancelledError(), 0)], ids=repr
)
async def test_work_goes_on_when_its_caller_goes(way: Way, log: Log, failure: BaseException | None, lines: int) -> None:
    work, running = Work(failure), shielded_tasks()
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
