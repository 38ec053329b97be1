"""The event feed."""

from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, Protocol

from service.application.ports.queries import Row


class EventPosition(NamedTuple):
    """The place of an event in the order of all events, in which a later one never comes before an earlier one read."""

    xid: int
    position: int


class EventPositionExpired(Exception):
    """Events after this place are no longer kept; `earliest` is the first place that works."""

    def __init__(self, earliest: EventPosition) -> None:
        super().__init__()
        self.earliest = earliest


class EventFeed(Protocol):
    """The events of all users and orders, as they are committed."""

    async def earliest(self) -> EventPosition:
        """Return the place before the first event that is kept; raises StoreError."""

    async def latest(self) -> EventPosition:
        """Return the place of the last event; raises StoreError."""

    def follow(
        self, after: EventPosition, wanted: Callable[[Row], bool]
    ) -> AsyncGenerator[tuple[EventPosition, Row | None], None]:
        """Yield each event after a place that is wanted, once, with its own place, and wait for more.

        None instead of an event only says how far the reader has come; one such comes at once if no event does.

        Raises:
            EventPositionExpired: events after the place are no longer kept.
            SlowConsumer: this reader takes too long for what comes.
            ServerDraining: the server shuts down.
            StoreError: the first read failed; later ones are tried again until they succeed.
        """
