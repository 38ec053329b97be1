"""Polls the event log for all live watchers of a process, so that they cost the database as much as one."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import DBAPIError

from service.application.ports.errors import Overloaded, StoreError
from service.application.ports.events import EventPosition, EventPositionExpired
from service.db.events.log import EventLog, EventPage
from service.db.events.watcher import PositionedEvent, Watcher
from service.domain.errors import ServerDraining
from service.observability.logs import where_raised
from service.runtime.retry import Backoff

# How many of the last events the poller remembers. A watcher whose own page ends among them can go live: the
# poller supplies the rest.
RECENT_EVENTS = 1000
# The pauses after failed reads.
BACKOFF = Backoff(base=0.05, factor=2, cap=2.0)
# A lag above this is logged, at most once per period.
LAG_TO_LOG_SECONDS = 2.0
LAG_LOG_PERIOD_SECONDS = 10.0

log = structlog.get_logger()


class Poller:
    """One task that reads new events while there are live watchers, and offers them to each.

    Args:
        event_log: the event log, on a connection that no watcher uses.
        interval: seconds between two polls.

    Attributes:
        lag: seconds for which the oldest unread event has been waiting for a running transaction; 0 if there is none.
        events: how many events were read.
    """

    def __init__(self, event_log: EventLog, *, interval: float) -> None:
        self.lag = 0.0
        self.events = 0
        self._lag_log_time = 0.0
        self._log = event_log
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._watchers: set[Watcher] = set()
        # The poller remembers every event after `_floor`, up to `_position`.
        self._position = self._floor = EventPosition(0, 0)
        self._recent: deque[PositionedEvent] = deque(maxlen=RECENT_EVENTS)

    @property
    def position(self) -> int:
        """The number of the last event that was read; 0 before the first one."""
        return self._position.position

    def refuse_if_draining(self) -> None:
        """Raise ServerDraining after `drain`."""
        if self._draining:
            raise ServerDraining("the server is shutting down; resume from the cursor on another server")

    def join(self, watcher: Watcher, page: EventPage) -> None:
        """Let the watcher go live at the end of the page, if the poller still has every later event."""
        if page.has_more:
            return
        if self._task is None:
            self._position = self._floor = page.end
            self._recent.clear()
            # In an empty context: log lines of the task must not name the call that happens to start it.
            self._task = asyncio.create_task(self._run(), context=Context())
        elif page.end.is_before(self._floor):
            return
        watcher.go_live(page.end, self._recent)
        self._watchers.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        """Offer the watcher no more events."""
        self._watchers.discard(watcher)

    def drain(self) -> None:
        """End all live watchers with ServerDraining."""
        self._draining = True
        for watcher in self._watchers:
            watcher.wake()

    async def close(self) -> None:
        """Stop polling."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def read_with_retries(
        self, read: Callable[[EventPosition], Awaitable[EventPage]], after: EventPosition
    ) -> EventPage:
        """Return the page that `read` returns for a position; retries while the database fails, without a limit."""
        failures = 0
        while True:
            try:
                page = await read(after)
            except (StoreError, Overloaded, DBAPIError) as error:
                self.refuse_if_draining()
                failures += 1
                if failures == 1:
                    log.warning("cannot read events; retrying", **where_raised(error))
                await asyncio.sleep(BACKOFF.pause(failures))
            else:
                if failures:
                    log.info("reading events again")
                return page

    async def _run(self) -> None:
        failure: BaseException | None = None
        try:
            # The watcher that started this task has joined before the task first runs.
            while self._watchers:
                page = await self.read_with_retries(self._log.page, self._position)
                self._publish(page)
                self._measure_lag(page.waiting_since)
                await asyncio.sleep(0 if page.has_more else self._interval)
        except asyncio.CancelledError as error:
            # Watchers would stay live without a poller, and get nothing but checkpoints.
            failure = error
            raise
        except (EventPositionExpired, ServerDraining) as error:
            failure = error
        except Exception as error:
            failure = error
            log.exception("polling for events failed")
        finally:
            self._task = None
            if failure:
                for watcher in self._watchers:
                    watcher.fail(failure)
                self._watchers.clear()

    def _publish(self, page: EventPage) -> None:
        for positioned in page.events:
            if len(self._recent) == RECENT_EVENTS:
                self._floor, _ = self._recent[0]
            self._recent.append(positioned)
        self._position = page.end
        self.events += len(page.events)
        for watcher in self._watchers:
            watcher.offer(page.events)

    def _measure_lag(self, waiting_since: datetime | None) -> None:
        self.lag = max(0.0, (datetime.now(UTC) - waiting_since).total_seconds()) if waiting_since else 0.0
        if self.lag > LAG_TO_LOG_SECONDS and time.monotonic() - self._lag_log_time > LAG_LOG_PERIOD_SECONDS:
            self._lag_log_time = time.monotonic()
            log.warning("a long transaction delays events", lag_seconds=round(self.lag, 1))
