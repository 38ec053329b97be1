"""Decisions about users that come many at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

from service.application.ports.errors import Contention
from service.application.ports.unit_of_work import UnitOfWork
from service.domain.errors import AlreadyExists, DomainError, UserAlreadyExists, UserDeleted
from service.domain.users import User, UserFields


class OnConflict(StrEnum):
    """What to do with a row whose e-mail belongs to a user already."""

    SKIP = "SKIP"
    UPDATE = "UPDATE"
    FAIL = "FAIL"


class Done(StrEnum):
    """What became of a row that is not wrong."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    SKIPPED = "SKIPPED"


Outcome = Done | DomainError


@dataclass(frozen=True, slots=True)
class ImportRow:
    """A user to import. `fields` holds what the row sets."""

    fields: UserFields
    password: str
    # Made once for all attempts: one whose commit was not heard of is recognised by it.
    id: UUID = field(default_factory=uuid7)

    @property
    def email(self) -> str:
        """What the user is found by."""
        return self.fields["email"].lower()


async def import_rows(
    uow: UnitOfWork,
    rows: Sequence[ImportRow],
    password_hashes: Mapping[UUID, str],
    on_conflict: OnConflict,
    now: datetime,
) -> list[Outcome]:
    """Create or update the users of the rows and return what became of each.

    With FAIL the list ends with the first conflict, an AlreadyExists, and only what comes before it is written.

    Args:
        uow: keeps the users.
        rows: what to import; its order counts where two rows are about one user.
        password_hashes: by row, for all rows with a password whose user is not known to exist.
        on_conflict: what to do with users that exist.
        now: when it happens.

    Raises:
        Contention: users came or went meanwhile; worth another try.
    """
    if _are_apart(rows):
        try:
            async with uow.savepoint():
                return await _import(uow, rows, password_hashes, on_conflict, now)
        except AlreadyExists:
            # Somebody has a username of theirs, and all must be written anew to learn whose.
            pass
    outcomes: list[Outcome] = []
    for row in rows:
        try:
            async with uow.savepoint():
                outcomes += await _import(uow, [row], password_hashes, on_conflict, now)
        except AlreadyExists as error:
            outcomes.append(error)
        if on_conflict is OnConflict.FAIL and isinstance(outcomes[-1], AlreadyExists):
            break
    return outcomes


def _are_apart(rows: Sequence[ImportRow]) -> bool:
    """Return whether no two rows are about one user, or want one username."""
    names = ({row.email for row in rows}, {row.fields["username"] for row in rows})
    return all(len(different) == len(rows) for different in names)


async def _import(
    uow: UnitOfWork,
    rows: Sequence[ImportRow],
    password_hashes: Mapping[UUID, str],
    on_conflict: OnConflict,
    now: datetime,
) -> list[Outcome]:
    emails = [row.email for row in rows]
    users: Mapping[str, User] = {}
    if on_conflict is OnConflict.UPDATE:
        users = await uow.users.by_email_for_update(emails)
        ids: Mapping[str, UUID] = {email: user.id for email, user in users.items()}
    else:
        ids = await uow.users.ids_by_email(emails)
    created: list[User] = []
    outcomes: list[Outcome] = []
    for row in rows:
        user_id = ids.get(row.email)
        if user_id is None:
            if row.password and row.id not in password_hashes:
                # Its user was there a moment ago.
                raise Contention
            created.append(User.create(row.fields, now, row.id))
            outcomes.append(Done.CREATED)
        elif user_id == row.id:
            outcomes.append(Done.CREATED)
        elif on_conflict is OnConflict.UPDATE:
            outcomes.append(_update(users[row.email], row.fields, now))
        elif on_conflict is OnConflict.SKIP:
            outcomes.append(Done.SKIPPED)
        else:
            outcomes.append(UserAlreadyExists("email"))
            break
    await uow.users.add_all(created, password_hashes)
    await uow.flush()
    return outcomes


def _update(user: User, fields: UserFields, now: datetime) -> Outcome:
    version = user.version
    # The e-mail stays as it was written first.
    changes = fields.copy()
    del changes["email"]
    try:
        user.update(changes, now)
    except UserDeleted as error:
        return error
    return Done.SKIPPED if user.version == version else Done.UPDATED
