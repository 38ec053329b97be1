"""Where a watch is: what has arrived, what its caller has handled, and what is stored. Both clients share it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from commerce.client.messages import make_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from commerce.client.methods import Method

Start = Literal["now", "earliest"]
# An event that was delivered before is known by its id. Events come again only after a gap (`CursorExpired.earliest`),
# or if a server repeats them, which is soon after.
_KNOWN_EVENTS = 10_000


class _Event(Protocol):
    @property
    def id(self) -> str: ...


Event = TypeVar("Event", bound=_Event)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a watch behaves.

    Attributes:
        start: where it starts if there is no cursor.
        cursor: after which it starts; None for the stored one.
        save_interval: seconds between two cursors that are stored; 0 stores each.
        stall_timeout: seconds without an event and without a checkpoint after which the connection is given up.
        connect_timeout: seconds to wait for the first response; None for no limit.
        reconnect_timeout: seconds to wait until a watch that has worked goes on; None for no limit.
    """

    start: Start
    cursor: str | None
    save_interval: float
    stall_timeout: float
    connect_timeout: float | None
    reconnect_timeout: float | None

    def __post_init__(self) -> None:
        if self.start not in {"now", "earliest"}:
            raise ValueError(f"start must be 'now' or 'earliest', not {self.start!r}; a cursor is given as `cursor`")
        if not self.stall_timeout > 0:
            raise ValueError("stall_timeout must be greater than 0")


class WatchPosition(Generic[Event]):
    """The position of one watch.

    A cursor is stored only when the caller asks for what follows it, which says that it has handled what came before.

    Attributes:
        cursor: of the last event that was delivered, or of a checkpoint after it.
    """

    def __init__(
        self,
        method: Method[Any, Any],
        filters: Mapping[str, Any],
        settings: WatchSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = make_request(method.request, {settings.start: True, **filters})
        self._interval = settings.save_interval
        self._clock = clock
        self._unsaved: str | None = None
        self._saved: str | None = None
        self._saved_at = -self._interval
        self._known: dict[str, None] = {}
        self.cursor: str | None = None
        if settings.cursor is not None:
            self.continue_from(settings.cursor)

    def continue_from(self, cursor: str) -> None:
        """Let the next request start after this cursor."""
        self.cursor = self._request.cursor = cursor

    def request(self) -> Message:
        """Return the request that starts after what has arrived."""
        request: Message = self._request
        return request

    def arrived(self, response: Any) -> Event | None:
        """Note a response, and return its event; None for a checkpoint and for an event that was delivered before."""
        self.continue_from(response.cursor)
        if not response.HasField("event"):
            return None
        event: Event = response.event
        if event.id in self._known:
            return None
        self._known[event.id] = None
        if len(self._known) > _KNOWN_EVENTS:
            del self._known[next(iter(self._known))]
        return event

    def handled(self) -> None:
        """Note that the caller has handled all that has arrived."""
        if self.cursor != self._saved:
            self._unsaved = self.cursor

    def to_save(self, *, closing: bool = False) -> str | None:
        """Return the cursor to store now, if there is one; call `saved` afterwards."""
        due = closing or self._clock() - self._saved_at >= self._interval
        return self._unsaved if due else None

    def saved(self, cursor: str) -> None:
        """Note that a cursor is stored."""
        self._saved, self._saved_at = cursor, self._clock()
        if self._unsaved == cursor:
            self._unsaved = None
