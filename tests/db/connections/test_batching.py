"""Batches of the items of many callers: each caller gets a result, an error or a cancellation."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.application.ports.errors import DeadlineExceeded
from service.application.ports.unit_of_work import TimeLeft
from service.db.connections.batching import Batcher
from service.db.connections.slots import Slots
from service.runtime.deadline import no_deadline
from service.runtime.shielded_tasks import ShieldedTasks
from tests.support.waiting import eventually


class Work:
    """What a batcher runs: it waits until it may go on, and then fails if it was given an error."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.failure: BaseException | None = None
        self.batches: list[list[Any]] = []

    async def __call__(self, items: Sequence[Any], _time_left: TimeLeft) -> Sequence[Any]:
        self.batches.append(list(items))
        await self.go_on.wait()
        if self.failure:
            raise self.failure
        return items


def batcher(work: Work, *, slots: Slots | None = None, callers_are_shielded: bool = False) -> Batcher[Any, Any]:
    shielded_tasks, slots = ShieldedTasks(lambda _error: True), slots or Slots(4, None)
    return Batcher(work, shielded_tasks, slots, max_items=100, callers_are_shielded=callers_are_shielded)


async def submitted(
    batches: Batcher[Any, Any], *items: object, time_left: TimeLeft = no_deadline
) -> list["asyncio.Task[Any]"]:
    """Submit items, one after the other, and let the batches begin that can."""
    callers = []
    for item in items:
        callers.append(asyncio.create_task(batches.submit(item, time_left)))
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
    assert await batches.submit(5, no_deadline) == 5


async def test_items_that_are_late_or_abandoned_join_no_batch() -> None:
    work = Work()
    batches = batcher(work)
    first = await submitted(batches, 1, 2)
    seconds = 5.0
    (abandoned,) = await submitted(batches, "abandoned")
    (late,) = await submitted(batches, "late", time_left=lambda: seconds)
    (in_time,) = await submitted(batches, "in time")
    abandoned.cancel()
    seconds = 0.0
    work.go_on.set()
    assert await in_time == "in time"
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.gather(*first)
    assert work.batches == [[1], [2], ["in time"]]


async def test_a_batch_has_the_time_of_the_caller_that_waits_longest() -> None:
    times: list[TimeLeft] = []
    go_on = asyncio.Event()

    async def run(items: Sequence[Any], time_left: TimeLeft) -> Sequence[Any]:
        times.append(time_left)
        await go_on.wait()
        return items

    batches: Batcher[Any, Any] = Batcher(run, ShieldedTasks(lambda _error: True), Slots(4, None), max_items=100)
    await submitted(batches, 1, 2)
    callers = [await submitted(batches, seconds, time_left=lambda seconds=seconds: seconds) for seconds in (1, 7, 3)]
    go_on.set()
    await eventually(lambda: len(times) == 3)
    assert times[2]() == 0.0
    await asyncio.gather(*(caller for (caller,) in callers))


async def test_stuck_batches_block_the_next_only_while_they_hold_half_of_the_connections() -> None:
    work = Work()
    batches = batcher(work, slots=Slots(8, None))
    callers = await submitted(batches, 1, 2, 3, 4)
    assert work.batches == [[1], [2]]
    await eventually(lambda: work.batches == [[1], [2], [3, 4]])
    callers += await submitted(batches, 5)
    await eventually(lambda: len(work.batches) == 4)
    callers += await submitted(batches, 6)
    # Longer than it takes for the others to begin.
    await asyncio.sleep(0.6)
    assert work.batches == [[1], [2], [3, 4], [5]]
    work.go_on.set()
    assert await asyncio.gather(*callers) == [1, 2, 3, 4, 5, 6]


async def test_no_batch_runs_in_place_of_a_stuck_one_without_a_free_connection() -> None:
    work, slots = Work(), Slots(8, None)
    batches = batcher(work, slots=slots)
    for _ in range(8):
        await slots.take(no_deadline)
    callers = await submitted(batches, 1, 2, 3)
    await asyncio.sleep(0.6)
    assert work.batches == [[1], [2]]
    slots.give_back()
    await eventually(lambda: work.batches == [[1], [2], [3]])
    work.go_on.set()
    await asyncio.gather(*callers)
