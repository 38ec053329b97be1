"""The events that a unit of work has recorded and not written yet, and columns that are made of other columns."""

from collections.abc import Callable, Iterable

from sqlalchemy.orm import Session, UOWTransaction
from sqlalchemy.orm.attributes import set_attribute

from service.application.ports.unit_of_work import Actor
from service.db.text_search import note_vector, user_vector
from service.db.writes.event_rows import event_row
from service.domain.events import Entity, Event
from service.domain.notes import OrderNote
from service.domain.users import User


class RecordedEvents:
    """Collects the events of the entities that are written.

    Args:
        encode_user: returns the encoded message of a user, which is written with the user's row.
    """

    def __init__(self, encode_user: Callable[[User], bytes | None]) -> None:
        self._encode_user = encode_user
        self._events: list[Event] = []

    def __bool__(self) -> bool:
        """Return whether there are events to write."""
        return bool(self._events)

    def add(self, events: Iterable[Event]) -> None:
        """Add events that belong to no loaded entity."""
        self._events.extend(events)

    def collect(self, entity: Entity) -> None:
        """Take the events of an entity that is written."""
        self._events.extend(entity.take_events())

    def collect_from_session(self, session: Session, _context: UOWTransaction, _instances: object) -> None:
        """Take the events of all entities that a session is about to flush (SQLAlchemy's `before_flush`).

        Not later: after the flush, the session only holds its entities weakly.
        """
        for entity in (*session.new, *session.dirty, *session.deleted):
            if isinstance(entity, Entity):
                self.collect(entity)
        for entity in (*session.new, *session.dirty):
            # The entities themselves do not know these columns.
            if isinstance(entity, User):
                set_attribute(entity, "message", self._encode_user(entity))
                set_attribute(entity, "search", user_vector(entity))
            elif isinstance(entity, OrderNote):
                set_attribute(entity, "search", note_vector(entity))

    def take_rows(self, actor: Actor) -> list[dict[str, object]]:
        """Return the rows to insert, oldest first, and forget the events."""
        rows = [event_row(event, actor) for event in sorted(self._events, key=lambda event: event.id)]
        self.discard()
        return rows

    def discard(self) -> None:
        """Forget the events."""
        self._events.clear()
