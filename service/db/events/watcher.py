"""A watcher: a bounded queue of undelivered events, and the state that it is in."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum, auto

from service.application.ports.events import EventPosition
from service.application.ports.queries import Row

# After this many consecutive events that the watcher does not want, it gets a checkpoint.
MAX_SKIPPED = 500

Wanted = Callable[[Row], bool]
PositionedEvent = tuple[EventPosition, Row]


class WatcherState(Enum):
    """How a watcher gets its next events."""

    # It reads pages of the event log itself.
    CATCHING_UP = auto()
    # The poller puts new events into its queue.
    LIVE = auto()
    # Its queue was full when the poller had an event for it. It takes what is in the queue, then catches up.
    OVERFLOWED = auto()
    # The poller failed. It takes what is in the queue, then ends with the poller's error.
    FAILED = auto()


class Watcher:
    """A watcher's bounded queue of undelivered events.

    Attributes:
        state: how it gets its next events.
        queue: the events that the poller has offered and the watcher has not taken.
        offered: the position up to which the poller has offered events; all of them are in the queue, were taken, or
            are not wanted.
        overflow_time: when the queue overflowed.
        failure: the error of the poller.
    """

    def __init__(self, wanted: Wanted, queue_size: int) -> None:
        self.state = WatcherState.CATCHING_UP
        self.queue: deque[PositionedEvent] = deque()
        self.offered = EventPosition(0, 0)
        self.overflow_time = 0.0
        self.failure: BaseException | None = None
        self._wanted = wanted
        self._queue_size = queue_size
        self._skipped = 0
        self._woken = asyncio.Event()

    def go_live(self, position: EventPosition, recent: Iterable[PositionedEvent]) -> None:
        """Take events from the poller from now on: the recent ones after the position, and those to come."""
        self.state = WatcherState.LIVE
        self.offered = position
        self._skipped = 0
        self.offer(recent)

    def offer(self, events: Iterable[PositionedEvent]) -> None:
        """Queue the events that are new and wanted, while the queue has room."""
        if self.state is not WatcherState.LIVE:
            return
        for position, event in events:
            if not self.offered.is_before(position):
                continue
            if not self._wanted(event):
                self._skipped += 1
                if self._skipped >= MAX_SKIPPED:
                    self.wake()
            elif len(self.queue) < self._queue_size:
                self.queue.append((position, event))
                self.wake()
            else:
                self.state = WatcherState.OVERFLOWED
                self.overflow_time = time.monotonic()
                return
            self.offered = position

    def fail(self, error: BaseException) -> None:
        """End the watcher with an error, once it has taken what is in the queue."""
        self.state = WatcherState.FAILED
        self.failure = error
        self.wake()

    def wake(self) -> None:
        """Wake a pending `wait`."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the poller wakes the watcher, or for some seconds."""
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._skipped = 0
