"""Use cases of users."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from service.application.credit import give_back_for_orders, grant_welcome_credit
from service.application.etags import check_etag
from service.application.ports.passwords import Passwords
from service.application.ports.queries import Row, UserQueries
from service.application.ports.sign_in_attempts import SignInAttempts
from service.application.ports.unit_of_work import UnitOfWork
from service.domain.errors import InvalidCredentials, UserInUse
from service.domain.events import Event
from service.domain.money import Money
from service.domain.sign_in import SignIn
from service.domain.text import composed
from service.domain.users import User, UserFields, UserState, require_password_length


async def create_user(
    uow: UnitOfWork,
    passwords: Passwords,
    fields: UserFields,
    password: str,
    now: datetime,
    *,
    welcome_credit: Money | None = None,
) -> User:
    """Create an ACTIVE user; raises InvalidField, Overloaded and, in the flush, UserAlreadyExists."""
    user = User.create(fields, now)
    require_password_length(password, "password")
    # Hashed before the unit of work is used, so that no connection is held meanwhile.
    password_hash = await passwords.hash(password)
    await uow.users.add(user, password_hash)
    if welcome_credit:
        await grant_welcome_credit(uow, user.id, welcome_credit, now)
    return user


async def change_user(uow: UnitOfWork, user_id: UUID, etag: str, change: Callable[[User], None]) -> User:
    """Apply a method of the user; raises UserNotFound, EtagMismatch and the errors of the method."""
    user = await uow.users.get_for_update(user_id)
    check_etag(user, etag)
    change(user)
    return user


async def purge_user(uow: UnitOfWork, user_id: UUID, etag: str, now: datetime, *, force: bool) -> int:
    """Purge a user with all data that belongs to it, and return the number of its orders.

    Raises:
        UserNotFound, EtagMismatch
        UserInUse: the user has open orders or credit, and `force` is false.
    """
    user = await uow.users.get_for_purge(user_id)
    check_etag(user, etag)
    if not force and await uow.users.has_open_orders_or_credit(user_id):
        raise UserInUse(user.subject, "the user has open orders or credit; set force to purge them too")
    held_by_others, paid_for_others = await uow.orders.lock_for_purge(user_id)
    await give_back_for_orders(uow, held_by_others, now)
    # The orders of others stay, so they change like any other: with a new etag and an event.
    for order in paid_for_others:
        order.lose_payer(now)
    for note in await uow.notes.about_orders_of_others(user_id):
        note.delete(now)
        await uow.notes.delete(note)
    # While the user still exists.
    await uow.flush()
    purged_orders = await uow.users.purge(user)
    uow.record([Event(User.aggregate_type, user_id, "PURGED", now)])
    return purged_orders


async def set_password(
    uow: UnitOfWork, passwords: Passwords, user_id: UUID, password: str, now: datetime, *, etag: str
) -> User:
    """Replace a user's password; raises InvalidField, UserNotFound, EtagMismatch, UserDeleted and Overloaded."""
    require_password_length(password, "password")
    password_hash = await passwords.hash(password)
    user = await change_user(uow, user_id, etag, lambda user: user.password_changed(now))
    await uow.users.set_password_hash(user_id, password_hash, now)
    return user


async def verify_password(
    uow: UnitOfWork,
    queries: UserQueries,
    passwords: Passwords,
    attempts: SignInAttempts,
    sign_in: SignIn,
    password: str,
    now: datetime,
) -> Row:
    """Return the active user with this login and password.

    Raises:
        InvalidCredentials: always after the same time, so as not to reveal which of the two is wrong.
        SignInLimited: too many attempts were made without success; the password was not checked.
        Overloaded: the queue of passwords is full.
    """
    # Counted before the password is checked: of many attempts at the same moment, on any server, none is checked that
    # one after the other would not be. It is committed by itself, because a call that fails commits nothing.
    attempt = await attempts.begin(sign_in)
    try:
        user = await _user_with_password(uow, queries, passwords, sign_in, password, now)
    except InvalidCredentials:
        raise
    except Exception:
        # For example, the queue of passwords is full. The attempt has revealed nothing, so it does not count.
        await attempts.undo(attempt)
        raise
    await attempts.succeeded(attempt)
    return user


async def _user_with_password(
    uow: UnitOfWork, queries: UserQueries, passwords: Passwords, sign_in: SignIn, password: str, now: datetime
) -> Row:
    # Read outside the unit of work, so that no connection is held while the password is hashed.
    credentials = await queries.credentials(**{sign_in.login_kind: sign_in.login})
    password_hash = credentials.password_hash if credentials else None
    matches, outdated = await passwords.verify(password, password_hash), False
    if not matches and composed(password) != password:
        # The same for every user, known or not, so the time reveals nothing.
        matches = outdated = await passwords.verify(password, password_hash, as_typed=True)
    if credentials is None or not matches or credentials.user.state != UserState.ACTIVE:
        message = "no active user matches this name and password"
        raise InvalidCredentials(message)
    if outdated or passwords.needs_rehash(credentials.password_hash):
        new_hash = await passwords.hash(password)
        await uow.users.replace_password_hash(credentials.user.id, credentials.password_hash, new_hash, now)
    return credentials.user
