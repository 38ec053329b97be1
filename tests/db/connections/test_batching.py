"""Batches of the items of many callers: each caller gets a result, an error or a cancellation, whatever happens."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.db.connections.batching import Batcher
from service.runtime.shielded_tasks import ShieldedTasks


class Work:
    """What a batcher runs: it waits until it may go on, and then fails if it was given an error."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.failure: BaseException | None = None
        self.batches: list[list[Any]] = []

    async def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append(list(items))
        await self.go_on.wait()
        if self.failure:
            raise self.failure
        return items


def batcher(work: Work, *, callers_are_shielded: bool = False) -> Batcher[Any, Any]:
    shielded_tasks = ShieldedTasks(lambda _error: True)
    return Batcher(work, shielded_tasks, max_items=100, callers_are_shielded=callers_are_shielded)


async def submitted(batches: Batcher[Any, Any], *items: object) -> list["asyncio.Task[Any]"]:
    """Submit items, one after the other, and let the batches begin that can."""
    callers = []
    for item in items:
        callers.append(asyncio.create_task(batches.submit(item)))
        for _ in range(3):
            await asyncio.sleep(0)
    return callers


@pytest.mark.parametrize("shielded", [False, True], ids=["", "callers_are_shielded"])
@pytest.mark.parametrize("failure", [ValueError(), asyncio.CancelledError()], ids=repr)
async def test_every_caller_gets_the_exception_of_its_batch(failure: BaseException, *, shielded: bool) -> None:
    work = Work()
    work.failure = failure
    batches = batcher(work, callers_are_shielded=shielded)
    # Two batches run, and the last two items wait for the third.
    callers = await submitted(batches, 1, 2, 3, 4)
    assert work.batches == [[1], [2]]
    work.go_on.set()
    done, waiting = await asyncio.wait(callers, timeout=10)
    assert not waiting
    assert {type(failure)} == {type(error) for error in await asyncio.gather(*done, return_exceptions=True)}
    assert work.batches == [[1], [2], [3, 4]]
    work.failure = None
    assert await batches.submit(5) == 5
