"""Slots: those who wait for one get it in turn, unless they are late or it takes too long."""

import asyncio

import pytest

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.db.connections.slots import Slots
from service.runtime.deadline import Deadline, no_deadline


async def test_one_that_is_late_when_its_turn_comes_leaves_the_slot_to_the_next() -> None:
    slots = Slots(1, None)
    await slots.take(no_deadline)
    deadline = Deadline(60)
    late = asyncio.create_task(slots.take(deadline))
    next_one = asyncio.create_task(slots.take(no_deadline))
    await asyncio.sleep(0)
    assert slots.all_taken
    # As when its client goes away.
    deadline.end()
    slots.give_back()
    with pytest.raises(DeadlineExceeded):
        await late
    async with asyncio.timeout(10):
        await next_one
    slots.give_back()
    assert not slots.all_taken


@pytest.mark.parametrize(
    ("limit", "seconds", "error"),
    [(0.05, 60, Overloaded), (60, 0.05, DeadlineExceeded), (None, 0.05, DeadlineExceeded), (60, -1, DeadlineExceeded)],
)
async def test_nobody_waits_beyond_the_timeout_or_its_deadline(
    limit: float | None, seconds: float, error: type[Exception]
) -> None:
    slots = Slots(1, limit)
    await slots.take(no_deadline)
    async with asyncio.timeout(20):
        with pytest.raises(error):
            await slots.take(Deadline(seconds))
    slots.give_back()
    assert not slots.all_taken


async def test_one_that_is_cancelled_takes_no_slot_along() -> None:
    slots = Slots(1, None)
    await slots.take(no_deadline)
    waiting = [asyncio.create_task(slots.take(no_deadline)) for _ in range(4)]
    await asyncio.sleep(0)
    # Before its turn, at the moment of its turn, and after others were passed over.
    waiting[0].cancel()
    slots.give_back()
    waiting[1].cancel()
    waiting[2].cancel()
    async with asyncio.timeout(10):
        await waiting[3]
    slots.give_back()
    assert not slots.all_taken
    assert [task.cancelled() for task in waiting] == [True, True, True, False]
