"""The event feed: what its watchers get when its poller ends, and what unread watches keep in memory."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from service.application.ports.events import EventPosition
from service.config import WatchSettings, load
from service.db.events import feed as feed_module
from service.db.events.feed import PollingEventFeed
from service.db.events.watcher import UndeliveredPages, Watcher, WatcherState
from tests.support.watching import insert_events


async def read_to_the_end(watch: AsyncIterator[object]) -> None:
    async with asyncio.timeout(10):
        async for _ in watch:
            pass


async def test_a_cancellation_of_the_poller_ends_the_watches_instead_of_leaving_them_without_events(
    database_url: str,
) -> None:
    feed = PollingEventFeed(load(WatchSettings, DATABASE_URL=database_url, watch_checkpoint_interval=0.05))
    try:
        watch = feed.follow(await feed.latest(), lambda _event: True)
        # Two checkpoints: after the second one the watcher is live.
        for _ in range(2):
            await anext(watch)
        (poller,) = (task for task in asyncio.all_tasks() if "Poller._run" in repr(task.get_coro()))
        poller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read_to_the_end(watch)
    finally:
        await feed.close()


def everything(_event: Any) -> bool:
    return True


def positioned(*numbers: int) -> list[tuple[EventPosition, Any]]:
    return [(EventPosition(number, 0), f"event {number}") for number in numbers]


def test_pages_that_are_not_read_make_room_for_those_that_are() -> None:
    pages = UndeliveredPages(10)
    first, second, third = (Watcher(everything, 10, 1) for _ in range(3))
    pages.put(first, positioned(1, 2, 3, 4, 5))
    pages.put(second, positioned(1, 2, 3, 4, 5))
    # `second` is now the one that has not read for the longest time.
    assert pages.take(first) == positioned(1)[0]
    pages.put(third, positioned(1, 2, 3))
    assert (first.has_lost_page, second.has_lost_page, third.has_lost_page) == (False, True, False)
    assert (len(first.page), len(second.page), len(third.page)) == (4, 0, 3)
    assert pages.take(second) is None
    # What was taken or dropped makes room.
    pages.put(second, positioned(1, 2, 3))
    assert not any(watcher.has_lost_page for watcher in (first, second, third))
    pages.drop(first)
    pages.put(first, positioned(1, 2, 3, 4))
    assert not any(watcher.has_lost_page for watcher in (first, second, third))
    # A watcher that has taken all of its page has nothing to lose.
    assert pages.take(third) == positioned(1)[0]
    assert [pages.take(third) for _ in range(3)] == [*positioned(2, 3), None]
    # A page that is too large by itself is kept all the same.
    pages.put(third, positioned(*range(20)))
    assert (first.has_lost_page, second.has_lost_page, third.has_lost_page) == (True, True, False)


def test_a_queue_that_is_not_read_in_time_is_emptied() -> None:
    patient, impatient = Watcher(everything, 10, 1000), Watcher(everything, 10, -1)
    for watcher in (patient, impatient):
        watcher.go_live(EventPosition(0, 0), ())
        watcher.offer(positioned(1))
        assert len(watcher.queue) == 1
        watcher.offer(positioned(2))
    assert (len(patient.queue), patient.state) == (2, WatcherState.LIVE)
    assert (len(impatient.queue), impatient.state) == (0, WatcherState.BEHIND)
    # Nothing is queued that would leave a gap.
    impatient.offer(positioned(3))
    assert not impatient.queue


async def test_watchers_that_pause_get_every_event_once_although_none_is_kept_for_them(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_UNDELIVERED_EVENTS", 600)
    settings = load(WatchSettings, DATABASE_URL=database_url, slow_consumer_timeout=0.1, watch_poll_interval=0.01)
    feed = PollingEventFeed(settings)
    ids = await insert_events(connection, 1200)
    try:
        earliest = await feed.earliest()
        watches = [feed.follow(earliest, everything) for _ in range(4)]
        seen: list[list[str]] = [[] for _ in watches]

        async def read_until(index: int, count: int) -> None:
            async with asyncio.timeout(20):
                while len(seen[index]) < count:
                    _, event = await anext(watches[index])
                    if event is not None:
                        seen[index].append(str(event.id))

        # Each loses its page to the next one, and the first two again and again.
        for count in (1, 2, 300, 700, 1200):
            for index in range(len(watches)):
                await read_until(index, count)
        for _ in range(3):
            # While no client reads, some watchers are live, and events come.
            ids += await insert_events(connection, 2)
            await asyncio.sleep(0.3)
        for index, watch in enumerate(watches):
            await read_until(index, len(ids))
            await watch.aclose()
        assert seen == [ids] * len(watches)
    finally:
        await feed.close()
