"""Gives all watchers of a process their events, for the price of one.

One tailer looks for new events while anybody watches, and offers them to every watcher. A watcher that is behind reads
pages of its own, a few watchers at a time, until it meets the tailer.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import DBAPIError

from service.application.ports.errors import Overloaded, StoreError
from service.application.ports.events import EventPosition, EventPositionExpired
from service.application.ports.queries import Row
from service.config import ServerSettings
from service.db.connections.engine import create_engine
from service.db.events.log import EventLog, EventPage
from service.db.reads.reader import Reader
from service.domain.errors import ServerDraining, SlowConsumer
from service.observability.logs import where_raised

# Unwanted events that a watcher passes before it says how far it has come.
MAX_SKIPPED = 500
# The last events that the tailer has read, for watchers that come to it from a page read a moment before.
RECENT = 1000
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
LAG_TO_LOG_SECONDS = 2.0
LAG_LOG_PERIOD_SECONDS = 10.0

Wanted = Callable[[Row], bool]
log = structlog.get_logger()


class _Watcher:
    """What the tailer offers to one watcher, as far as that has not read it.

    Attributes:
        events: what waits to be read, at most `limit`.
        seen: how far the tailer has come for this watcher.
        overflow_time: when there was no more room; nothing is offered from then on.
        failure: why the tailer ended.
    """

    def __init__(self, seen: EventPosition, wanted: Wanted, limit: int) -> None:
        self.events: deque[tuple[EventPosition, Row]] = deque()
        self.seen = seen
        self.overflow_time: float | None = None
        self.failure: BaseException | None = None
        self._wanted = wanted
        self._limit = limit
        self._skipped = 0
        self._news = asyncio.Event()

    def offer(self, place: EventPosition, event: Row) -> None:
        """Take the event if it is new and wanted."""
        if place <= self.seen or self.overflow_time is not None:
            return
        if not self._wanted(event):
            self._skipped += 1
            if self._skipped >= MAX_SKIPPED:
                self.wake()
        elif len(self.events) < self._limit:
            self.events.append((place, event))
            self.wake()
        else:
            self.overflow_time = time.monotonic()
            return
        self.seen = place

    def wake(self) -> None:
        """Let the watcher look."""
        self._news.set()

    async def news(self, seconds: float) -> None:
        """Wait until there is something new to look at, or for some seconds."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._skipped = 0


class PollingEventFeed:
    """Implements `service.application.ports.events.EventFeed` on connections of its own.

    Attributes:
        lag: seconds for which the oldest event has been waiting for a transaction that still runs; 0 if none has.
    """

    def __init__(self, settings: ServerSettings) -> None:
        # Apart, so that calls and watchers do not wait for each other's connections.
        self._engine = create_engine(settings, pool_size=1 + settings.watch_catch_ups)
        self._log = EventLog(Reader(self._engine).all)
        self._settings = settings
        self._catch_ups = asyncio.Semaphore(settings.watch_catch_ups)
        self._draining = False
        self.lag = 0.0
        self._lag_logged = 0.0
        # The tailer: where it is, who watches, and every event between `_floor` and where it is.
        self._task: asyncio.Task[None] | None = None
        self._watchers: set[_Watcher] = set()
        self._place = self._floor = EventPosition(0, 0)
        self._recent: deque[tuple[EventPosition, Row]] = deque(maxlen=RECENT)

    async def earliest(self) -> EventPosition:
        """Return the place before the first event that is kept; raises StoreError."""
        async with self._catch_ups:
            return await self._log.earliest()

    async def latest(self) -> EventPosition:
        """Return the place of the last event; raises StoreError."""
        async with self._catch_ups:
            return await self._log.latest()

    async def follow(
        self, after: EventPosition, wanted: Wanted
    ) -> AsyncGenerator[tuple[EventPosition, Row | None], None]:
        """Yield events, as `service.application.ports.events.EventFeed` says."""
        page = await self._own_page(after)
        while True:
            # Joined before anything is yielded: a slow reader would be left behind again and again.
            watcher = self._join(page, wanted)
            try:
                for place, event in page.events:
                    if wanted(event):
                        self._refuse_if_draining()
                        after = place
                        yield place, event
                if after != page.end or not page.events:
                    yield page.end, None
                after = page.end
                while watcher and (item := await self._next(watcher)):
                    after = item[0]
                    yield item
            finally:
                if watcher:
                    self._watchers.discard(watcher)
            page = await self._patiently(self._own_page, after)

    def drain(self) -> None:
        """End all watches, and refuse new ones, with ServerDraining."""
        self._draining = True
        for watcher in self._watchers:
            watcher.wake()

    async def close(self) -> None:
        """Stop looking, and close the connections."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._engine.dispose()

    def _refuse_if_draining(self) -> None:
        if self._draining:
            raise ServerDraining("the server shuts down; go on from the cursor at another")

    def _refuse_if_slow(self, overflow_time: float) -> None:
        patience = self._settings.watch_patience
        if time.monotonic() - overflow_time > patience:
            raise SlowConsumer(f"reading what was waiting took more than {patience:g} s; go on from the cursor")

    async def _next(self, watcher: _Watcher) -> tuple[EventPosition, Row | None] | None:
        """Return the next event, or none when none came for a while; None where the watcher had no more room."""
        self._refuse_if_draining()
        if not watcher.events and watcher.overflow_time is None and watcher.failure is None:
            await watcher.news(self._settings.watch_checkpoint_interval)
            self._refuse_if_draining()
        if watcher.events:
            return watcher.events.popleft()
        if watcher.failure:
            raise watcher.failure
        if watcher.overflow_time is not None:
            self._refuse_if_slow(watcher.overflow_time)
            return None
        return watcher.seen, None

    async def _own_page(self, after: EventPosition) -> EventPage:
        async with self._catch_ups:
            self._refuse_if_draining()
            return await self._log.page(after)

    def _join(self, page: EventPage, wanted: Wanted) -> _Watcher | None:
        """Return a watcher that the tailer offers everything after the page; None if that is too far ahead of it."""
        if page.has_more:
            return None
        if self._task is None:
            self._place = self._floor = page.end
            self._recent.clear()
            # Not in the context of the call that happens to be the first, which log lines would name.
            self._task = asyncio.create_task(self._tail(), context=Context())
        elif page.end < self._floor:
            return None
        watcher = _Watcher(page.end, wanted, self._settings.watch_queue)
        for place, event in self._recent:
            watcher.offer(place, event)
        self._watchers.add(watcher)
        return watcher

    async def _tail(self) -> None:
        """Offer new events to all watchers until there are none."""
        failure: BaseException | None = None
        try:
            # The watcher that this starts for is there when it first runs.
            while self._watchers:
                page = await self._patiently(self._log.page, self._place)
                self._offer(page)
                self._watch_lag(page.waiting_since)
                await asyncio.sleep(0 if page.has_more else self._settings.watch_poll_interval)
        except (EventPositionExpired, ServerDraining) as error:
            failure = error
        except Exception as error:
            failure = error
            log.exception("the tailer of events failed")
        finally:
            self._task = None
            for watcher in self._watchers if failure else ():
                watcher.failure = failure
                watcher.wake()
            if failure:
                self._watchers.clear()

    def _offer(self, page: EventPage) -> None:
        for place, event in page.events:
            if len(self._recent) == RECENT:
                self._floor = self._recent[0][0]
            self._recent.append((place, event))
        self._place = page.end
        for watcher in self._watchers:
            for place, event in page.events:
                watcher.offer(place, event)

    async def _patiently(
        self, read: Callable[[EventPosition], Awaitable[EventPage]], after: EventPosition
    ) -> EventPage:
        """Return the next page, however long the database fails, whatever it says."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                page = await read(after)
            except (StoreError, Overloaded, DBAPIError) as error:
                self._refuse_if_draining()
                if pause == FIRST_PAUSE_SECONDS:
                    log.warning("events cannot be read; trying on", **where_raised(error))
                await asyncio.sleep(random.uniform(0.5, 1) * pause)  # noqa: S311 - only spreads retries
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if pause > FIRST_PAUSE_SECONDS:
                    log.info("events are read again")
                return page

    def _watch_lag(self, waiting_since: datetime | None) -> None:
        self.lag = max(0.0, (datetime.now(UTC) - waiting_since).total_seconds()) if waiting_since else 0.0
        if self.lag > LAG_TO_LOG_SECONDS and time.monotonic() - self._lag_logged > LAG_LOG_PERIOD_SECONDS:
            self._lag_logged = time.monotonic()
            log.warning("events wait for a long transaction", lag_seconds=round(self.lag, 1))
