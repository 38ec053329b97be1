"""The import of many users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from uuid import UUID

from service.application.ports.errors import Contention
from service.application.ports.unit_of_work import UnitOfWork
from service.domain.errors import AlreadyExists, DomainError, UserAlreadyExists, UserDeleted
from service.domain.ids import uuid7
from service.domain.text import folded
from service.domain.users import User, UserFields


class OnConflict(Enum):
    """What to do with a row whose e-mail a user already has."""

    SKIP = auto()
    UPDATE = auto()
    FAIL = auto()


class Done(Enum):
    """The outcome of a valid row."""

    CREATED = auto()
    UPDATED = auto()
    SKIPPED = auto()


RowOutcome = Done | DomainError


@dataclass(frozen=True, slots=True)
class ImportRow:
    """A user to import. `fields` holds what the row sets."""

    fields: UserFields
    password: str
    # Generated once for all attempts: it identifies a user of an attempt that committed without a confirmation.
    id: UUID = field(default_factory=uuid7)

    @property
    def email(self) -> str:
        """The folded e-mail, by which the user is found."""
        return folded(self.fields["email"])


async def import_rows(
    uow: UnitOfWork,
    rows: Sequence[ImportRow],
    password_hashes: Mapping[UUID, str],
    on_conflict: OnConflict,
    now: datetime,
) -> list[RowOutcome]:
    """Create or update the users of the rows, and return the outcome of each row.

    With FAIL the list ends with the first conflict, an AlreadyExists, and only the rows before it are written.

    Args:
        uow: the unit of work that stores the users.
        rows: the rows to import; their order matters if two rows have the same e-mail.
        password_hashes: hashes by row id, for all rows with a password whose user did not exist before.
        on_conflict: what to do with users that exist.
        now: the current time.

    Raises:
        Contention: another transaction created or deleted users; a retry may succeed.
    """
    if _are_distinct(rows):
        try:
            async with uow.savepoint():
                return await _import(uow, rows, password_hashes, on_conflict, now)
        except AlreadyExists:
            # Another user has one of the usernames. Only writing the rows one by one shows which.
            pass
    if on_conflict is OnConflict.UPDATE:
        # All together, and so by id, like every call that locks several users; the rows have another order.
        await uow.users.by_email_for_update([row.email for row in rows])
    outcomes: list[RowOutcome] = []
    for row in rows:
        try:
            async with uow.savepoint():
                outcomes += await _import(uow, [row], password_hashes, on_conflict, now)
        except AlreadyExists as error:
            outcomes.append(error)
        if on_conflict is OnConflict.FAIL and isinstance(outcomes[-1], AlreadyExists):
            break
    return outcomes


def _are_distinct(rows: Sequence[ImportRow]) -> bool:
    """Return whether no two rows have the same e-mail or the same username."""
    names = ({row.email for row in rows}, {row.fields["username"] for row in rows})
    return all(len(different) == len(rows) for different in names)


async def _import(
    uow: UnitOfWork,
    rows: Sequence[ImportRow],
    password_hashes: Mapping[UUID, str],
    on_conflict: OnConflict,
    now: datetime,
) -> list[RowOutcome]:
    emails = [row.email for row in rows]
    users: Mapping[str, User] = {}
    if on_conflict is OnConflict.UPDATE:
        users = await uow.users.by_email_for_update(emails)
        ids: Mapping[str, UUID] = {email: user.id for email, user in users.items()}
    else:
        ids = await uow.users.ids_by_email(emails)
    created: list[User] = []
    outcomes: list[RowOutcome] = []
    for row in rows:
        user_id = ids.get(row.email)
        if user_id is None:
            if row.password and row.id not in password_hashes:
                # The user existed when the passwords were hashed.
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


def _update(user: User, fields: UserFields, now: datetime) -> RowOutcome:
    version = user.version
    # The stored e-mail keeps its upper and lower case.
    changes = fields.copy()
    del changes["email"]
    try:
        user.update(changes, now)
    except UserDeleted as error:
        return error
    return Done.SKIPPED if user.version == version else Done.UPDATED
