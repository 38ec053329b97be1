from datetime import UTC, datetime
from uuid import UUID

from service.domain.events import Event, FieldChange, etag_of
from service.domain.users import User

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SOME_ID = UUID("01890000-0000-7000-8000-000000000001")


def test_a_change_has_no_values_unless_given() -> None:
    assert FieldChange("name") == FieldChange("name", "", "")


def test_an_event_is_about_its_entity_only_unless_given() -> None:
    one, two = (Event("user", SOME_ID, "CREATED", NOW) for _ in range(2))
    assert (one.changes, one.user_id, one.status) == ((), None, None)
    assert one.id.version == 7
    assert one.id < two.id


def test_events_of_a_user_have_neither_owner_nor_status() -> None:
    user = User.create({"email": "ada@example.com", "username": "ada"}, NOW)
    user.record("SEEN", NOW, [FieldChange("name", "a", "b")])
    created, seen = user.take_events()
    assert (created.user_id, created.status) == (None, None)
    assert (seen.aggregate_type, seen.aggregate_id, seen.type, seen.create_time) == ("user", user.id, "SEEN", NOW)
    assert seen.changes == (FieldChange("name", "a", "b"),)
    assert (user.version, user.etag) == (1, etag_of(1))
