"""The event feed."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from service.application.ports.queries import Row


class EventPosition(NamedTuple):
    """The position of an event in the event log. No event is ever added before a position that has been read.

    Attributes:
        xid: the first key of the order in which events are read: the transaction that wrote the event or, if that is
            greater, the `xid` of the previous event of the same user or order.
        position: the second key.
        database: identifies the database since it was created or restored; 0 if that is unknown.
        timeline: PostgreSQL's number of the timeline, which changes when a standby is promoted; that may lack the last
            events.
        event: identifies the event at this position; 0 if there is none.
    """

    xid: int
    position: int
    database: int = 0
    timeline: int = 0
    event: int = 0

    def is_before(self, other: "EventPosition") -> bool:
        """Return whether the other position comes later in the log."""
        return self[:2] < other[:2]


class EventPositionExpired(Exception):
    """Events after this position were deleted or are unknown; `earliest` is the first valid position."""

    def __init__(self, earliest: EventPosition) -> None:
        super().__init__()
        self.earliest = earliest


class EventFeed(Protocol):
    """The events of all users and orders, in the order of the event log."""

    def watching(self) -> AbstractContextManager[None]:
        """Count a watch while the block runs; raises Overloaded if there are too many."""

    async def earliest(self) -> EventPosition:
        """Return the position before the first stored event; raises StoreError."""

    async def latest(self) -> EventPosition:
        """Return the position of the last event; raises StoreError."""

    def follow(
        self, after: EventPosition, wanted: Callable[[Row], bool]
    ) -> AsyncGenerator[tuple[EventPosition, Row | None], None]:
        """Yield each wanted event after a position once, together with its position, and wait for more.

        A checkpoint has None instead of an event, and shows how far the events have been read. If there is no wanted
        event yet, a checkpoint is yielded immediately.

        Raises:
            EventPositionExpired: events after the position have been deleted, or the position is that of another
                database: of one that was restored since, or of a failed primary whose last events were lost.
            SlowConsumer: the reader is slower than the events.
            ServerDraining: the server is shutting down.
            StoreError: the first read failed; later reads are retried until they succeed.
        """
