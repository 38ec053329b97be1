"""Pages of lists share the event loop with other work."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.application.ports.queries import Page, UserFilter, UserOrder
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.reads import reader as readers
from service.db.reads.reader import Reader
from service.db.reads.users import UserQueries

PAGES = 5


class MeetingReader(Reader):
    """A reader whose statements end in the same turn of the event loop."""

    barrier: asyncio.Barrier

    async def all(self, *args: Any, **options: Any) -> Sequence[Any]:
        """Return all rows of a statement as soon as the others have theirs."""
        rows = await super().all(*args, **options)
        await self.barrier.wait()
        return rows


async def test_no_two_large_pages_are_built_in_one_turn_of_the_event_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a page without rows is large.
    monkeypatch.setattr(readers, "LARGE_BYTES", -1)
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=PAGES)
    reader = MeetingReader(engine)
    reader.barrier = asyncio.Barrier(PAGES)
    turn = 0
    built: list[int] = []

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def read() -> None:
        page = Page(10, None, include_total_size=False)
        await UserQueries(reader).page(UserFilter(None, None, None, None), UserOrder.NEWEST, page)
        built.append(turn)

    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*(read() for _ in range(PAGES)))
    counting.cancel()
    assert len(set(built)) == PAGES
    await reader.drain()
    await engine.dispose()
