"""Notes that users write about orders."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from service.domain.errors import IllegalTransition, InvalidField
from service.domain.events import Entity, Event, FieldChange
from service.domain.ids import uuid7_beside
from service.domain.orders import Order
from service.domain.text import multi_line

MAX_BODY_LENGTH = 4000


class NoteState(StrEnum):
    """Whether a note is meant only for its author (DRAFT) or for everyone (PUBLISHED)."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"


@dataclass(eq=False, kw_only=True)
class OrderNote(Entity):
    """A note about an order. It has its own version; its events are in the timeline of the order."""

    aggregate_type = "note"

    id: UUID
    order_id: UUID
    author_id: UUID
    body: str
    state: NoteState
    version: int
    create_time: datetime
    update_time: datetime
    # Set once PUBLISHED.
    publish_time: datetime | None = None

    @classmethod
    def write(cls, order_id: UUID, author_id: UUID, body: str, now: datetime) -> "OrderNote":
        """Return a new DRAFT; raises InvalidField if the body is empty or too long."""
        body = _checked_body(body)
        note = cls(
            # Beside the order, which keeps its id when it is transferred to another user.
            id=uuid7_beside(order_id),
            order_id=order_id,
            author_id=author_id,
            body=body,
            state=NoteState.DRAFT,
            version=1,
            create_time=now,
            update_time=now,
        )
        note.record("NOTE_CREATED", now)
        return note

    def update(self, body: str | None, now: datetime) -> None:
        """Replace the body, in any state, unless `body` is None; raises InvalidField if it is empty or too long."""
        if body is None or (body := _checked_body(body)) == self.body:
            return
        self.body = body
        self.changed("NOTE_UPDATED", now)

    def publish(self, now: datetime) -> None:
        """Change from DRAFT to PUBLISHED; raises IllegalTransition."""
        if self.state is not NoteState.DRAFT:
            raise IllegalTransition(self.subject, "publish a note", self.state, ())
        self.state = NoteState.PUBLISHED
        self.changed("NOTE_PUBLISHED", now)
        self.publish_time = self.update_time

    def delete(self, now: datetime) -> None:
        """Record that the note is deleted."""
        self.record("NOTE_DELETED", max(now, self.update_time))

    def record(self, event_type: str, now: datetime, changes: Iterable[FieldChange] = ()) -> None:
        """Record an event of the order, which contains the id of the note but not its text."""
        old = "" if event_type == "NOTE_CREATED" else str(self.id)
        new = "" if event_type == "NOTE_DELETED" else str(self.id)
        event = Event(
            Order.aggregate_type, self.order_id, event_type, now, (FieldChange("note_id", old, new), *changes)
        )
        self._events().append(event)


def _checked_body(body: str) -> str:
    if not body:
        raise InvalidField.at("note.body", "must be set")
    return multi_line(body, MAX_BODY_LENGTH, "note.body")
