"""Events: facts that entities record, stored in the transaction that changes the entity."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from service.domain.ids import uuid7


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that changed, with its values as text. Values that are long or personal are left empty."""

    field: str
    old_value: str = ""
    new_value: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact about one entity. `type` is upper case, for example `SHIPPED`."""

    aggregate_type: str
    aggregate_id: UUID
    type: str
    create_time: datetime
    changes: tuple[FieldChange, ...] = ()
    # For an event of an order: the owner and the status of the order after the event. Watchers filter by them.
    user_id: UUID | None = None
    status: str | None = None
    id: UUID = field(default_factory=uuid7)


class Entity:
    """Base of entities: an id, a version that every change increments, and the events that are not stored yet."""

    aggregate_type: ClassVar[str]
    id: UUID
    version: int
    update_time: datetime

    @property
    def etag(self) -> str:
        """The etag (AIP-154), which identifies the version: every change of the entity changes it."""
        return etag_of(self.version)

    @property
    def subject(self) -> str:
        """The name of the entity in error details, for example `orders/<id>`."""
        return f"{self.aggregate_type}s/{self.id}"

    def changed(self, event_type: str, now: datetime, changes: Iterable[FieldChange] = ()) -> None:
        """Increment the version and record an event."""
        self.version += 1
        # The clocks of servers differ, but the time of one entity must not run backwards.
        self.update_time = max(now, self.update_time)
        self.record(event_type, self.update_time, changes)

    def record(self, event_type: str, now: datetime, changes: Iterable[FieldChange] = ()) -> None:
        """Record an event without incrementing the version."""
        self._events().append(self._event(event_type, now, tuple(changes)))

    def _event(self, event_type: str, now: datetime, changes: tuple[FieldChange, ...]) -> Event:
        return Event(self.aggregate_type, self.id, event_type, now, changes)

    def take_events(self) -> list[Event]:
        """Return the events recorded since the last call, oldest first."""
        events = list(self._events())
        self._events().clear()
        return events

    def _events(self) -> list[Event]:
        # Not a dataclass field: SQLAlchemy loads an entity without calling __init__.
        events: list[Event] = self.__dict__.setdefault("_pending_events", [])
        return events


def etag_of(version: int) -> str:
    """Return the etag of an entity at this version.

    >>> etag_of(3)
    'v3'
    """
    return f"v{version}"
