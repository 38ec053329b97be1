"""The event feed: what its watchers get when its poller ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.config import WatchSettings, load
from service.db.events.feed import PollingEventFeed


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
