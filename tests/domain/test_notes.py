from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from service.domain.errors import IllegalTransition, InvalidField
from service.domain.events import Event, FieldChange
from service.domain.ids import SHARD_BITS
from service.domain.notes import MAX_BODY_LENGTH, NoteState, OrderNote

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
EARLIER = NOW - timedelta(seconds=1)
ORDER = UUID("01890000-0000-7000-8000-000000000abc")
AUTHOR = UUID("01890000-0000-7000-8000-000000000002")


def written(body: str = "Fragile") -> OrderNote:
    """Return a new note, without its event."""
    note = OrderNote.write(ORDER, AUTHOR, body, NOW)
    note.take_events()
    return note


def only_event(note: OrderNote) -> Event:
    (event,) = note.take_events()
    return event


def described(event: Event) -> tuple[object, ...]:
    return event.aggregate_type, event.aggregate_id, event.type, event.create_time, event.changes


def test_the_states_are_those_of_the_table() -> None:
    assert [*NoteState] == ["DRAFT", "PUBLISHED"]


def test_a_new_note_is_a_draft_at_version_one() -> None:
    note = OrderNote.write(ORDER, AUTHOR, "Fragile", NOW)
    assert (note.order_id, note.author_id, note.body, note.state) == (ORDER, AUTHOR, "Fragile", NoteState.DRAFT)
    assert (note.version, note.create_time, note.update_time, note.publish_time) == (1, NOW, NOW, None)
    assert note.subject == f"notes/{note.id}"
    assert note.id.version == 7
    # Beside its order.
    assert note.id.int % (1 << SHARD_BITS) == ORDER.int % (1 << SHARD_BITS)


def test_a_new_note_is_an_event_of_its_order() -> None:
    note = OrderNote.write(ORDER, AUTHOR, "Fragile", NOW)
    changes = (FieldChange("note_id", "", str(note.id)),)
    assert described(only_event(note)) == ("order", ORDER, "NOTE_CREATED", NOW, changes)


def test_a_new_body_replaces_the_old_one() -> None:
    note = written()
    note.update("Handle with care\r\nplease", LATER)
    assert (note.body, note.version, note.update_time) == ("Handle with care\nplease", 2, LATER)
    # The event does not contain the text.
    changes = (FieldChange("note_id", str(note.id), str(note.id)),)
    assert described(only_event(note)) == ("order", ORDER, "NOTE_UPDATED", LATER, changes)


@pytest.mark.parametrize("body", [None, "two\nlines", "two\r\nlines"])
def test_the_same_body_changes_nothing(body: str | None) -> None:
    note = written("two\nlines")
    note.update(body, LATER)
    assert (note.body, note.version, note.update_time, note.take_events()) == ("two\nlines", 1, NOW, [])


def test_a_published_note_can_be_updated() -> None:
    note = written()
    note.publish(NOW)
    note.update("Not so fragile", LATER)
    assert (note.body, note.state) == ("Not so fragile", NoteState.PUBLISHED)


def test_the_longest_body_has_four_thousand_characters() -> None:
    assert MAX_BODY_LENGTH == 4000
    assert written("x" * 4000).body == "x" * 4000


@pytest.mark.parametrize(("body", "problem"), [("", "must be set"), ("x" * 4001, "at most 4000")])
def test_an_empty_or_a_longer_body_is_refused(body: str, problem: str) -> None:
    note = written()
    for refusing in (lambda: written(body), lambda: note.update(body, LATER)):
        with pytest.raises(InvalidField, match=problem) as refused:
            refusing()
        assert [violation.field for violation in refused.value.violations] == ["note.body"]
    assert (note.body, note.version, note.take_events()) == ("Fragile", 1, [])


def test_a_draft_is_published_once() -> None:
    note = written()
    note.publish(LATER)
    assert (note.state, note.version, note.update_time, note.publish_time) == (NoteState.PUBLISHED, 2, LATER, LATER)
    changes = (FieldChange("note_id", str(note.id), str(note.id)),)
    assert described(only_event(note)) == ("order", ORDER, "NOTE_PUBLISHED", LATER, changes)
    with pytest.raises(IllegalTransition, match="cannot publish a note in state PUBLISHED") as refused:
        note.publish(LATER + timedelta(seconds=1))
    assert refused.value.subject == f"notes/{note.id}"
    assert refused.value.metadata == {"state": "PUBLISHED", "allowed": ""}
    assert (note.publish_time, note.take_events()) == (LATER, [])


def test_a_deletion_is_an_event_without_a_new_id() -> None:
    note = written()
    note.delete(LATER)
    changes = (FieldChange("note_id", str(note.id), ""),)
    assert described(only_event(note)) == ("order", ORDER, "NOTE_DELETED", LATER, changes)


def test_time_does_not_run_backwards_when_a_clock_does() -> None:
    note = written()
    note.publish(EARLIER)
    assert (note.update_time, note.publish_time) == (NOW, NOW)
    assert only_event(note).create_time == NOW
    note.delete(EARLIER)
    assert only_event(note).create_time == NOW


def test_other_changes_follow_the_id() -> None:
    note = written()
    note.record("NOTE_MOVED", NOW, [FieldChange("folder", "a", "b")])
    ids = FieldChange("note_id", str(note.id), str(note.id))
    assert only_event(note).changes == (ids, FieldChange("folder", "a", "b"))
