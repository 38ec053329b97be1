"""The event feed."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from service.application.ports.queries import Row


class EventPosition(NamedTuple):
    """The position of an event in the event log. No event is ever added before a position that has been read."""

    xid: int
    position: int


class EventPositionExpired(Exception):
    """Events after this position have been deleted; `earliest` is the first valid position."""

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
            EventPositionExpired: events after the position have been deleted.
            SlowConsumer: the reader is slower than the events.
            ServerDraining: the server is shutting down.
            StoreError: the first read failed; later reads are retried until they succeed.
        """
