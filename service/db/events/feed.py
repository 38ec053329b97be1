"""The event feed: delivers events to the watchers of a process.

A watcher catches up by reading pages of the event log itself, a few watchers at a time. When it reaches the newest
event, it goes live: from then on a single poller reads new events for all live watchers and puts them into their
queues. A watcher whose queue overflows takes what is in the queue and catches up again
(`service.db.events.watcher.WatcherState`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from service.application.ports.errors import Overloaded
from service.application.ports.events import EventPosition
from service.application.ports.queries import Row
from service.application.ports.unit_of_work import TimeLeft
from service.config import WatchSettings
from service.db.connections.engine import create_engine
from service.db.connections.measured import MeasuredEngine
from service.db.connections.reader import StatementReader
from service.db.connections.slots import Slots
from service.db.events.log import EventLog, EventPage
from service.db.events.poller import Poller
from service.db.events.watcher import UndeliveredPages, Wanted, Watcher, WatcherState
from service.domain.errors import SlowConsumer
from service.observability.metrics.statements import Statements
from service.runtime.deadline import no_deadline

# The maximum number of events in the pages that watchers have read and not delivered: those of twenty full pages.
MAX_UNDELIVERED_EVENTS = 10_000


class PollingEventFeed:
    """Implements `service.application.ports.events.EventFeed` on a connection pool of its own.

    Args:
        settings: how to reach the database, and the limits of watchers.
        statements: counts the statements that read events, for metrics; None counts none.

    Attributes:
        watchers: all watchers.
        drops: how often a watcher has lost its place in the feed, by cause (`service.db.events.watcher`).
        measured: counts the connections; None without `statements`.
    """

    def __init__(self, settings: WatchSettings, statements: Statements | None = None) -> None:
        # Not the pool of the calls: calls and watchers must not wait for each other's connections. One connection is
        # the poller's, so that it never waits for watchers that catch up.
        self._engine = create_engine(settings, pool_size=1 + settings.watch_catch_up_connections)
        self.measured = None if statements is None else MeasuredEngine(self._engine, statements)
        self.watchers: set[Watcher] = set()
        self.drops: Counter[str] = Counter()
        self._reader = StatementReader(self._engine)
        self._log = EventLog(self._reader.all)
        self._poller = Poller(self._log, interval=settings.watch_poll_interval)
        self._catch_ups = asyncio.Semaphore(settings.watch_catch_up_connections)
        self._pages = UndeliveredPages(MAX_UNDELIVERED_EVENTS, self.drops)
        self._watches = 0
        self._settings = settings

    @property
    def lag(self) -> float:
        """Seconds for which the oldest unread event has been waiting for a running transaction; 0 if there is none."""
        return self._poller.lag

    @property
    def position(self) -> int:
        """The number of the last event that was read for live watchers; 0 before the first one."""
        return self._poller.position

    @property
    def events(self) -> int:
        """How many events were read for live watchers."""
        return self._poller.events

    @property
    def slots(self) -> Slots:
        """Those for the connections of the feed."""
        return self._reader.executor.slots

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watch while the block runs; raises Overloaded if there are too many."""
        if self._watches >= self._settings.max_watches:
            raise Overloaded("watches")
        self._watches += 1
        try:
            yield
        finally:
            self._watches -= 1

    async def earliest(self) -> EventPosition:
        """Return the position before the oldest stored event; raises StoreError."""
        async with self._catch_ups:
            return await self._log.earliest()

    async def latest(self) -> EventPosition:
        """Return the position of the newest event; raises StoreError."""
        async with self._catch_ups:
            return await self._log.latest()

    async def follow(
        self, after: EventPosition, wanted: Wanted
    ) -> AsyncGenerator[tuple[EventPosition, Row | None], None]:
        """Yield events, as `service.application.ports.events.EventFeed` says."""
        watcher = Watcher(wanted, self._settings.watch_queue_size, self._settings.slow_consumer_timeout, self.drops)
        self.watchers.add(watcher)
        try:
            page = await self._catch_up_page(after)
            while True:
                # Before anything is yielded: otherwise a slow client would fall behind the poller while it reads the
                # page, and never go live.
                self._poller.join(watcher, page)
                self._pages.put(watcher, page.events)
                end, was_empty = page.end, not page.events
                # Its events are now those that the watcher has not taken.
                del page
                while item := self._pages.take(watcher):
                    if wanted(item[1]):
                        self._poller.refuse_if_draining()
                        after, _ = item
                        yield item
                if watcher.has_lost_page:
                    watcher.fall_behind()
                else:
                    if after != end or was_empty:
                        yield end, None
                    after = end
                while item := await self._next(watcher):
                    after, _ = item
                    yield item
                page = await self._poller.read_with_retries(self._catch_up_page, after)
        finally:
            self.watchers.discard(watcher)
            self._pages.drop(watcher)
            self._poller.leave(watcher)

    def drain(self) -> None:
        """End all watches, and refuse new ones, with ServerDraining."""
        self._poller.drain()

    async def close(self, time_left: TimeLeft = no_deadline) -> None:
        """Stop polling, and close the connections; a page that is still read then is cancelled when no time is left."""
        await self._poller.close()
        # A page that is still being read has a connection, which `dispose` would leave open.
        await self._reader.drain(time_left)
        await self._engine.dispose()

    async def _catch_up_page(self, after: EventPosition) -> EventPage:
        async with self._catch_ups:
            self._poller.refuse_if_draining()
            return await self._log.page(after)

    async def _next(self, watcher: Watcher) -> tuple[EventPosition, Row | None] | None:
        """Return the next event of a live watcher, or a checkpoint after a while without one; None to catch up."""
        self._poller.refuse_if_draining()
        if watcher.state is WatcherState.LIVE and not watcher.queue:
            await watcher.wait(self._settings.watch_checkpoint_interval)
            self._poller.refuse_if_draining()
        if watcher.queue:
            return watcher.take()
        if watcher.failure:
            raise watcher.failure
        if watcher.state is WatcherState.LIVE:
            return watcher.offered, None
        if watcher.state is WatcherState.OVERFLOWED:
            self._refuse_if_slow(watcher)
        self._poller.leave(watcher)
        watcher.state = WatcherState.CATCHING_UP
        return None

    def _refuse_if_slow(self, watcher: Watcher) -> None:
        timeout = self._settings.slow_consumer_timeout
        if time.monotonic() - watcher.overflow_time > timeout:
            raise SlowConsumer(f"reading the queued events took more than {timeout:g} s; resume from the cursor")
