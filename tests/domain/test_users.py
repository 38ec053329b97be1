from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from uuid_utils.compat import uuid7

from service.domain.errors import IllegalTransition, InvalidField, UserDeleted, UserNotActive
from service.domain.events import Event, FieldChange
from service.domain.users import MAX_BIO_LENGTH, PURGE_AFTER, TRANSITIONS, User, UserFields, UserState, checked_fields

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)

ACTIVE, INACTIVE, DELETED = UserState.ACTIVE, UserState.INACTIVE, UserState.DELETED
# A deleted user remembers its previous state, so there are four states in all.
WAYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "active": (),
        "inactive": ("deactivate",),
        "deleted from active": ("delete",),
        "deleted from inactive": ("deactivate", "delete"),
    }
)
TRANSITION_METHODS: Mapping[str, Callable[[User, datetime], None]] = MappingProxyType(
    {"deactivate": User.deactivate, "reactivate": User.reactivate, "delete": User.delete, "undelete": User.undelete}
)


def user_in(source: str) -> User:
    """Return a user in this state, without pending events."""
    user = User.create({"email": "Ada@example.com", "username": "ada"}, NOW)
    for transition in WAYS[source]:
        TRANSITION_METHODS[transition](user, NOW)
    user.take_events()
    return user


def only_event(user: User) -> Event:
    (event,) = user.take_events()
    return event


def test_a_created_user_is_active_at_version_one() -> None:
    fields: UserFields = {"email": "Ada@example.com", "username": "ada", "full_name": "Ada", "superuser": True}
    user = User.create(fields, NOW)
    assert (user.state, user.version, user.etag) == (ACTIVE, 1, "v1")
    # Stored as written: the database compares it without regard to case.
    assert (user.email, user.username, user.full_name, user.superuser) == ("Ada@example.com", "ada", "Ada", True)
    assert (user.create_time, user.update_time) == (NOW, NOW)
    assert (user.delete_time, user.purge_time, user.undelete_state) == (None, None, None)
    assert user.id.version == 7


def test_a_created_user_records_its_creation() -> None:
    user = User.create({"email": "ada@example.com", "username": "ada"}, NOW)
    event = only_event(user)
    assert (event.aggregate_type, event.aggregate_id, event.type) == ("user", user.id, "CREATED")
    assert (event.create_time, event.changes) == (NOW, ())


def test_a_user_is_no_superuser_and_has_no_full_name_unless_asked() -> None:
    user = User.create({"email": "ada@example.com", "username": "ada"}, NOW)
    assert (user.superuser, user.full_name) == (False, "")


@pytest.mark.parametrize("missing", ["email", "username"])
@pytest.mark.parametrize("how", ["empty", "absent"])
def test_a_user_needs_an_email_and_a_username(missing: str, how: str) -> None:
    fields = {"email": "ada@example.com", "username": "ada", missing: ""}
    if how == "absent":
        del fields[missing]
    with pytest.raises(InvalidField) as refused:
        User.create(fields, NOW)  # type: ignore[arg-type] # its names are those of UserFields
    assert [violation.field for violation in refused.value.violations] == [f"user.{missing}"]


@pytest.mark.parametrize(
    ("source", "transition", "state", "event_type"),
    [
        ("active", "deactivate", INACTIVE, "DEACTIVATED"),
        ("inactive", "reactivate", ACTIVE, "REACTIVATED"),
        ("active", "delete", DELETED, "DELETED"),
        ("inactive", "delete", DELETED, "DELETED"),
        ("deleted from active", "undelete", ACTIVE, "UNDELETED"),
        ("deleted from inactive", "undelete", INACTIVE, "UNDELETED"),
    ],
)
def test_a_transition_takes_a_user_to_its_next_state(
    source: str, transition: str, state: UserState, event_type: str
) -> None:
    user = user_in(source)
    old_state, old_version = user.state, user.version
    assert state in TRANSITIONS[old_state]
    TRANSITION_METHODS[transition](user, LATER)
    assert (user.state, user.version, user.update_time) == (state, old_version + 1, LATER)
    event = only_event(user)
    assert (event.type, event.create_time) == (event_type, LATER)
    assert event.changes == (FieldChange("state", old_state.value, state.value),)


@pytest.mark.parametrize(
    ("source", "transition", "allowed"),
    [
        ("active", "reactivate", "INACTIVE, DELETED"),
        ("active", "undelete", "INACTIVE, DELETED"),
        ("inactive", "deactivate", "ACTIVE, DELETED"),
        ("inactive", "undelete", "ACTIVE, DELETED"),
        ("deleted from active", "deactivate", "ACTIVE"),
        ("deleted from active", "reactivate", "ACTIVE"),
        ("deleted from active", "delete", "ACTIVE"),
        ("deleted from inactive", "deactivate", "INACTIVE"),
        ("deleted from inactive", "reactivate", "INACTIVE"),
        ("deleted from inactive", "delete", "INACTIVE"),
    ],
)
def test_any_other_transition_is_refused_and_says_what_is_allowed(source: str, transition: str, allowed: str) -> None:
    user = user_in(source)
    before = (user.state, user.version, user.update_time, user.delete_time, user.purge_time, user.undelete_state)
    with pytest.raises(IllegalTransition) as refused:
        TRANSITION_METHODS[transition](user, LATER)
    assert refused.value.subject == f"users/{user.id}"
    assert refused.value.metadata == {"state": user.state.value, "allowed": allowed}
    # The error does not list the refused transition as allowed.
    assert not refused.value.message.partition(";")[0].endswith(tuple(f" to {state}" for state in allowed.split(", ")))
    after = (user.state, user.version, user.update_time, user.delete_time, user.purge_time, user.undelete_state)
    assert (after, user.take_events()) == (before, [])


@pytest.mark.parametrize("source", ["active", "inactive"])
def test_a_deleted_user_can_be_purged_after_thirty_days(source: str) -> None:
    user = user_in(source)
    user.delete(LATER)
    assert user.delete_time == LATER
    assert user.purge_time == LATER + PURGE_AFTER == LATER + timedelta(days=30)


@pytest.mark.parametrize("source", ["deleted from active", "deleted from inactive"])
def test_an_undeleted_user_has_no_time_of_its_deletion(source: str) -> None:
    user = user_in(source)
    user.undelete(LATER)
    assert (user.delete_time, user.purge_time, user.undelete_state) == (None, None, None)


def test_a_user_deleted_twice_goes_back_to_the_state_before_the_last_deletion() -> None:
    user = user_in("deleted from active")
    user.undelete(NOW)
    user.deactivate(NOW)
    user.delete(LATER)
    user.undelete(LATER)
    assert user.state is INACTIVE


def test_a_deletion_never_lies_before_the_last_change() -> None:
    user = user_in("active")
    user.delete(NOW - timedelta(hours=1))
    assert (user.update_time, user.delete_time, user.purge_time) == (NOW, NOW, NOW + PURGE_AFTER)


@pytest.mark.parametrize("source", ["active", "inactive"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("email", "grace@example.com"), ("username", "grace"), ("full_name", "Grace"), ("superuser", True)],
)
def test_an_update_sets_a_field_and_records_its_name_only(source: str, name: str, value: object) -> None:
    user = user_in(source)
    before = user.version
    user.update({name: value}, LATER)  # type: ignore[misc] # the names are those of UserFields
    assert getattr(user, name) == value
    assert (user.version, user.update_time) == (before + 1, LATER)
    event = only_event(user)
    assert (event.type, event.create_time, event.changes) == ("UPDATED", LATER, (FieldChange(name),))


def test_a_superuser_can_become_an_ordinary_user() -> None:
    user = User.create({"email": "ada@example.com", "username": "ada", "superuser": True}, NOW)
    user.update({"superuser": False}, LATER)
    assert user.superuser is False


def test_an_email_can_change_its_case() -> None:
    user = user_in("active")
    user.update({"email": "ada@example.com"}, LATER)
    assert (user.email, user.version) == ("ada@example.com", 2)


def test_several_fields_are_one_change() -> None:
    user = user_in("active")
    user.update({"full_name": "Ada", "username": "ada", "superuser": True}, LATER)
    assert user.version == 2
    assert [change.field for change in only_event(user).changes] == ["full_name", "superuser"]


def test_the_full_name_can_be_emptied() -> None:
    user = User.create({"email": "ada@example.com", "username": "ada", "full_name": "Ada"}, NOW)
    user.update({"full_name": ""}, LATER)
    assert user.full_name == ""


@pytest.mark.parametrize("same", [{}, {"username": "ada"}, {"email": "Ada@example.com", "superuser": False}], ids=str)
def test_an_update_to_the_same_values_changes_nothing(same: UserFields) -> None:
    user = user_in("active")
    user.update(same, LATER)
    assert (user.version, user.update_time, user.take_events()) == (1, NOW, [])


@pytest.mark.parametrize("name", ["email", "username"])
def test_an_update_cannot_empty_the_names_and_then_sets_nothing(name: str) -> None:
    user = user_in("active")
    with pytest.raises(InvalidField) as refused:
        user.update({"full_name": "Grace", name: ""}, LATER)  # type: ignore[misc] # the names are those of UserFields
    assert [violation.field for violation in refused.value.violations] == [f"user.{name}"]
    assert (user.email, user.username, user.full_name) == ("Ada@example.com", "ada", "")
    assert (user.version, user.update_time, user.take_events()) == (1, NOW, [])


@pytest.mark.parametrize("source", ["deleted from active", "deleted from inactive"])
@pytest.mark.parametrize(
    "change",
    [
        lambda user: user.update({"full_name": "Ada"}, LATER),
        lambda user: user.update({}, LATER),
        lambda user: user.password_changed(LATER),
    ],
    ids=["update", "empty update", "password"],
)
def test_a_deleted_user_cannot_be_changed(source: str, change: Callable[[User], None]) -> None:
    user = user_in(source)
    before = user.version
    with pytest.raises(UserDeleted) as refused:
        change(user)
    assert (refused.value.subject, refused.value.metadata) == (f"users/{user.id}", {"state": "DELETED"})
    assert (user.version, user.update_time, user.full_name, user.take_events()) == (before, NOW, "", [])


@pytest.mark.parametrize("source", ["active", "inactive"])
def test_a_new_password_is_a_change_that_shows_nothing_of_it(source: str) -> None:
    user = user_in(source)
    before = user.version
    user.password_changed(LATER)
    assert (user.version, user.update_time) == (before + 1, LATER)
    event = only_event(user)
    assert (event.type, event.changes) == ("PASSWORD_CHANGED", ())


def test_an_active_user_can_order() -> None:
    user_in("active").require_active("place orders")


@pytest.mark.parametrize("source", ["inactive", "deleted from active", "deleted from inactive"])
def test_no_other_user_can_order(source: str) -> None:
    user = user_in(source)
    with pytest.raises(UserNotActive) as refused:
        user.require_active("place orders")
    assert (refused.value.subject, refused.value.metadata) == (f"users/{user.id}", {"state": user.state.value})


def test_time_does_not_run_backwards_when_a_clock_does() -> None:
    user = user_in("active")
    user.update({"full_name": "Ada"}, NOW - timedelta(hours=1))
    assert (user.version, user.update_time) == (2, NOW)
    assert only_event(user).create_time == NOW


def test_the_names_of_states_are_those_of_the_table() -> None:
    assert [*UserState] == ["ACTIVE", "INACTIVE", "DELETED"]


def test_a_user_can_be_created_with_an_id_and_a_profile() -> None:
    user_id = uuid7()
    names: UserFields = {"email": "ada@example.com", "username": "ada"}
    user = User.create({**names, "bio": "two\r\nlines", "avatar_url": "https://example.com/a"}, NOW, user_id)
    assert (user.id, user.bio, user.avatar_url) == (user_id, "two\nlines", "https://example.com/a")
    other = User.create(names, NOW)
    assert (other.bio, other.avatar_url) == ("", "")
    assert (other.subject, other.aggregate_type) == (f"users/{other.id}", "user")


@pytest.mark.parametrize("name", ["bio", "avatar_url"])
@pytest.mark.parametrize("has_profile", [True, False])
def test_a_field_of_the_profile_is_set_and_recorded_by_its_path(name: str, *, has_profile: bool) -> None:
    user = user_in("active")
    if has_profile:
        user.update({"bio": "old", "avatar_url": "https://example.com/old"}, NOW)
        user.take_events()
    else:
        user.profile = None
    others = {other: getattr(user, other) for other in ("bio", "avatar_url") if other != name}
    user.update({name: "new"}, LATER)  # type: ignore[misc] # the names are those of UserFields
    assert {other: getattr(user, other) for other in ("bio", "avatar_url")} == {**others, name: "new"}
    assert only_event(user).changes == (FieldChange(f"profile.{name}"),)


def test_a_user_without_a_profile_says_nothing() -> None:
    user = user_in("active")
    user.profile = None
    assert (user.bio, user.avatar_url) == ("", "")
    user.update({"bio": "", "avatar_url": ""}, LATER)
    assert (user.profile, user.take_events()) == (None, [])


def test_a_bio_has_up_to_a_thousand_characters() -> None:
    assert MAX_BIO_LENGTH == 1000
    assert checked_fields({"bio": "\r\n" * 1000}) == {"bio": "\n" * 1000}
    given: UserFields = {"bio": "two\r\nlines"}
    checked_fields(given)
    assert given == {"bio": "two\r\nlines"}


@pytest.mark.parametrize(
    ("fields", "field"), [({"full_name": "\u200b"}, "full_name"), ({"bio": "x" * 1001}, "profile.bio")]
)
def test_a_wrong_field_of_a_user_is_named(fields: UserFields, field: str) -> None:
    user = user_in("active")
    names: UserFields = {"email": "ada@example.com", "username": "ada"}
    for prefix, refusing in (
        ("", lambda: checked_fields(fields)),
        ("row.", lambda: checked_fields(fields, "row.")),
        ("user.", lambda: User.create({**names, **fields}, NOW)),
        ("user.", lambda: user.update(fields, NOW)),
    ):
        with pytest.raises(InvalidField) as refused:
            refusing()
        assert [violation.field for violation in refused.value.violations] == [f"{prefix}{field}"]


@pytest.mark.parametrize("transition", TRANSITION_METHODS)
def test_a_refused_transition_is_named(transition: str) -> None:
    source = "active" if transition == "undelete" else "deleted from active"
    state = "ACTIVE" if transition == "undelete" else "DELETED"
    with pytest.raises(IllegalTransition, match=f"^cannot {transition} a user in state {state};"):
        TRANSITION_METHODS[transition](user_in(source), LATER)


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(UserDeleted, match="undelete it first"):
        user_in("deleted from active").require_not_deleted()
    with pytest.raises(UserNotActive, match="the user is INACTIVE; only an ACTIVE user can place orders"):
        user_in("inactive").require_active("place orders")
    with pytest.raises(InvalidField, match=r"user\.email: must be set"):
        User.create({"username": "ada"}, NOW)
