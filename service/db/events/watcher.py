"""A watcher: a bounded queue of undelivered events, and the state that it is in.

A client that does not read must not keep many events in memory. So a queue that is not read is emptied after some time,
and of the pages that watchers have read, only those of the latest readers are kept (`UndeliveredPages`). Their watchers
read the events again if their clients go on.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
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
    # It did not take what was in its queue in time, so the queue was emptied. It catches up.
    BEHIND = auto()
    # The poller failed. It takes what is in the queue, then ends with the poller's error.
    FAILED = auto()


class Watcher:
    """A watcher's bounded queue of undelivered events.

    Args:
        wanted: whether the client wants an event.
        queue_size: the maximum number of events in the queue.
        patience: seconds after which the queue is emptied if nothing is taken.
        drops: counts how often watchers lose their places, by cause: `overflow`, `stalled`, or `page`.

    Attributes:
        state: how it gets its next events.
        queue: the events that the poller has offered and the watcher has not taken.
        offered: the position up to which the poller has offered events; all of them are in the queue, were taken, or
            are not wanted.
        overflow_time: when the queue overflowed.
        failure: the error of the poller.
        page: the events of the last page that it read itself, and has not taken.
        has_lost_page: whether the page was emptied before all of it was taken.
    """

    def __init__(self, wanted: Wanted, queue_size: int, patience: float, drops: Counter[str] | None = None) -> None:
        self._drops: Counter[str] = Counter() if drops is None else drops
        self.state = WatcherState.CATCHING_UP
        self.queue: deque[PositionedEvent] = deque()
        self.offered = EventPosition(0, 0)
        self.overflow_time = 0.0
        self.failure: BaseException | None = None
        self.page: deque[PositionedEvent] = deque()
        self.has_lost_page = False
        self._patience = patience
        # When an event was taken, or put into the empty queue.
        self._queue_time = 0.0
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

    def take(self) -> PositionedEvent:
        """Remove the oldest event from the queue, and return it."""
        self._queue_time = time.monotonic()
        return self.queue.popleft()

    def fall_behind(self) -> None:
        """Empty the queue; the watcher must catch up."""
        self.queue.clear()
        if self.state is WatcherState.LIVE:
            self.state = WatcherState.BEHIND
            self._drops["stalled"] += 1

    def offer(self, events: Iterable[PositionedEvent]) -> None:
        """Queue the events that are new and wanted, while the queue has room and is read."""
        if self.queue and time.monotonic() - self._queue_time > self._patience:
            self.fall_behind()
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
                if not self.queue:
                    self._queue_time = time.monotonic()
                self.queue.append((position, event))
                self.wake()
            else:
                self.state = WatcherState.OVERFLOWED
                self._drops["overflow"] += 1
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


class UndeliveredPages:
    """The pages that watchers have read and not taken yet; above a number of events, the least recently read lose them.

    Args:
        max_events: the maximum number of events in all pages together.
        drops: as for a watcher.
    """

    def __init__(self, max_events: int, drops: Counter[str] | None = None) -> None:
        self._drops: Counter[str] = Counter() if drops is None else drops
        self._max_events = max_events
        self._events = 0
        # In the order in which they last took an event.
        self._watchers: OrderedDict[Watcher, None] = OrderedDict()

    def put(self, watcher: Watcher, events: Iterable[PositionedEvent]) -> None:
        """Keep the page of a watcher, and empty other pages if there are too many events."""
        self.drop(watcher)
        watcher.page.extend(events)
        watcher.has_lost_page = False
        self._events += len(watcher.page)
        self._watchers[watcher] = None
        while self._events > self._max_events and len(self._watchers) > 1:
            stalest = next(iter(self._watchers))
            stalest.has_lost_page = True
            self._drops["page"] += 1
            self.drop(stalest)

    def take(self, watcher: Watcher) -> PositionedEvent | None:
        """Remove the next event from the page of a watcher, and return it; None if there is none."""
        if not watcher.page:
            return None
        item = watcher.page.popleft()
        self._events -= 1
        if watcher.page:
            self._watchers.move_to_end(watcher)
        else:
            self.drop(watcher)
        return item

    def drop(self, watcher: Watcher) -> None:
        """Empty the page of a watcher."""
        self._watchers.pop(watcher, None)
        self._events -= len(watcher.page)
        watcher.page.clear()
