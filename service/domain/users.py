"""Users, who can sign in and place orders."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TypedDict
from uuid import UUID

from service.domain.errors import IllegalTransition, InvalidField, UserDeleted, UserNotActive
from service.domain.events import Entity, FieldChange
from service.domain.ids import uuid7
from service.domain.text import composed, multi_line, require_visible

# A deleted user can be undeleted for this long.
PURGE_AFTER = timedelta(days=30)
MAX_BIO_LENGTH = 1000
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 128


class UserState(StrEnum):
    """Whether a user can sign in and place orders."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    DELETED = "DELETED"


TRANSITIONS: Mapping[UserState, tuple[UserState, ...]] = MappingProxyType(
    {
        UserState.ACTIVE: (UserState.INACTIVE, UserState.DELETED),
        UserState.INACTIVE: (UserState.ACTIVE, UserState.DELETED),
        # Of these two, undeleting restores the state before the deletion.
        UserState.DELETED: (UserState.ACTIVE, UserState.INACTIVE),
    }
)


class UserFields(TypedDict, total=False):
    """The fields of a user that a client can set."""

    email: str
    username: str
    full_name: str
    superuser: bool
    bio: str
    avatar_url: str


def checked_fields(fields: UserFields, prefix: str = "") -> UserFields:
    """Return the fields as they are stored.

    Raises:
        InvalidField: for the field, after `prefix`, if the full name shows nothing or the bio is too long.
    """
    require_visible(fields.get("full_name"), f"{prefix}full_name")
    if "bio" in fields:
        bio = multi_line(fields["bio"], MAX_BIO_LENGTH, f"{prefix}profile.bio")
        if bio != fields["bio"]:
            fields = fields.copy()
            fields["bio"] = bio
    return fields


def require_password_length(password: str, field: str) -> None:
    """Raise InvalidField for `field` if a new password is too short or too long in form NFKC, in which it is hashed.

    Keyboards send the same password in different forms, so that its length before says nothing.
    """
    if not MIN_PASSWORD_LENGTH <= len(composed(password)) <= MAX_PASSWORD_LENGTH:
        message = f"must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters in Unicode form NFKC"
        raise InvalidField.at(field, message)


# Fields of the profile; in requests and events their paths are `profile.bio` and `profile.avatar_url`.
_PROFILE_FIELDS = frozenset({"bio", "avatar_url"})


@dataclass(eq=False, kw_only=True)
class Profile:
    """What users say about themselves."""

    bio: str = ""
    avatar_url: str = ""


@dataclass(eq=False, kw_only=True)
class User(Entity):
    """A person or system. The password hash is not part of the entity; only the database layer has it."""

    aggregate_type = "user"

    id: UUID
    email: str
    username: str
    full_name: str
    superuser: bool
    state: UserState
    # The state that `undelete` restores; set while DELETED.
    undelete_state: UserState | None = None
    version: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None
    purge_time: datetime | None = None
    # None for a user created before profiles existed.
    profile: Profile | None = None

    @classmethod
    def create(cls, fields: UserFields, now: datetime, user_id: UUID | None = None) -> "User":
        """Return a new ACTIVE user; raises InvalidField if a name is empty, and like `checked_fields`."""
        fields = checked_fields(fields, "user.")
        _require_names(fields.get("email", ""), fields.get("username", ""))
        user = cls(
            id=user_id or uuid7(),
            email=fields["email"],
            username=fields["username"],
            full_name=fields.get("full_name", ""),
            superuser=fields.get("superuser", False),
            state=UserState.ACTIVE,
            version=1,
            create_time=now,
            update_time=now,
            profile=Profile(bio=fields.get("bio", ""), avatar_url=fields.get("avatar_url", "")),
        )
        user.record("CREATED", now)
        return user

    @property
    def bio(self) -> str:
        """The bio of the profile."""
        return self.profile.bio if self.profile else ""

    @property
    def avatar_url(self) -> str:
        """The avatar URL of the profile."""
        return self.profile.avatar_url if self.profile else ""

    def update(self, fields: UserFields, now: datetime) -> None:
        """Set these fields; a field that already has its value does not count as changed.

        Raises:
            UserDeleted: the user is deleted.
            InvalidField: the e-mail or username would be empty; and like `checked_fields`.
        """
        self.require_not_deleted()
        fields = checked_fields(fields, "user.")
        _require_names(fields.get("email", self.email), fields.get("username", self.username))
        # Events have only the names of the fields: the values are personal, and an event outlives the user.
        changes: list[FieldChange] = []
        for name, value in fields.items():
            if getattr(self, name) == value:
                continue
            if name in _PROFILE_FIELDS:
                self.profile = self.profile or Profile()
                setattr(self.profile, name, value)
                changes.append(FieldChange(f"profile.{name}"))
            else:
                setattr(self, name, value)
                changes.append(FieldChange(name))
        if changes:
            self.changed("UPDATED", now, changes)

    def deactivate(self, now: datetime) -> None:
        """Change from ACTIVE to INACTIVE; raises IllegalTransition."""
        self._require_state(UserState.ACTIVE, "deactivate")
        self._change_state(UserState.INACTIVE, "DEACTIVATED", now)

    def reactivate(self, now: datetime) -> None:
        """Change from INACTIVE to ACTIVE; raises IllegalTransition."""
        self._require_state(UserState.INACTIVE, "reactivate")
        self._change_state(UserState.ACTIVE, "REACTIVATED", now)

    def delete(self, now: datetime) -> None:
        """Change to DELETED, and store the state for `undelete`; raises IllegalTransition (AIP-164)."""
        if UserState.DELETED not in TRANSITIONS[self.state]:
            raise self._illegal("delete")
        self.undelete_state = self.state
        self._change_state(UserState.DELETED, "DELETED", now)
        self.delete_time = self.update_time
        self.purge_time = self.delete_time + PURGE_AFTER

    def undelete(self, now: datetime) -> None:
        """Restore the state before the deletion; raises IllegalTransition (AIP-164)."""
        if self.undelete_state is None:
            raise self._illegal("undelete")
        state, self.undelete_state = self.undelete_state, None
        self.delete_time = self.purge_time = None
        self._change_state(state, "UNDELETED", now)

    def password_changed(self, now: datetime) -> None:
        """Record that the password was replaced; raises UserDeleted."""
        self.require_not_deleted()
        self.changed("PASSWORD_CHANGED", now)

    def require_not_deleted(self) -> None:
        """Raise UserDeleted if the user is deleted."""
        if self.state is UserState.DELETED:
            raise UserDeleted(self.subject, "the user is deleted; undelete it first", {"state": self.state})

    def require_active(self, action: str) -> None:
        """Raise UserNotActive unless the user is ACTIVE; `action` names what requires it, such as `place orders`."""
        if self.state is not UserState.ACTIVE:
            message = f"the user is {self.state}; only an ACTIVE user can {action}"
            raise UserNotActive(self.subject, message, {"state": self.state})

    def _require_state(self, state: UserState, transition: str) -> None:
        if self.state is not state:
            raise self._illegal(transition)

    def _change_state(self, state: UserState, event_type: str, now: datetime) -> None:
        change = FieldChange("state", self.state, state)
        self.state = state
        self.changed(event_type, now, [change])

    def _illegal(self, transition: str) -> IllegalTransition:
        allowed = TRANSITIONS[self.state] if self.undelete_state is None else (self.undelete_state,)
        return IllegalTransition(self.subject, f"{transition} a user", self.state, allowed)


def _require_names(email: str, username: str) -> None:
    for field, value in (("email", email), ("username", username)):
        if not value:
            raise InvalidField.at(f"user.{field}", "must be set")
