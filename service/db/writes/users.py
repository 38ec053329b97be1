"""The repository of users."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Text, any_, bindparam, delete, exists, func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.attributes import set_attribute
from sqlalchemy.sql.base import ExecutableOption

from service.application.ports.errors import Contention
from service.db.arrays import arrays, insert_arrays
from service.db.errors import translated_errors
from service.db.reads.users import folded_email
from service.db.tables import (
    OPEN,
    credit_accounts,
    credit_entries,
    events,
    orders,
    user_passwords,
    user_profiles,
    users,
)
from service.db.text_search import are_approximate, user_vector
from service.db.writes.recorded_events import RecordedEvents
from service.db.writes.request_ids import delete_responses_about_user
from service.db.writes.transaction import LazyTransaction
from service.domain.errors import UserAlreadyExists, UserNotFound
from service.domain.orders import CreditState
from service.domain.text import folded
from service.domain.users import User, UserState

# The columns of new users, profiles and passwords that differ from row to row; all others are constants.
_USERS = ("id", "email", "username", "full_name", "superuser", "create_time", "update_time")
_INSERTED = (*_USERS, "message", "search")
_PROFILES = ("user_id", "bio", "avatar_url")
_PASSWORDS = ("user_id", "password_hash", "update_time")
_INSERT_USERS = (
    insert_arrays(users, _INSERTED, state=UserState.ACTIVE, version=1)
    .on_conflict_do_nothing(index_elements=[text('lower(email COLLATE "C")')])
    .returning(users.c.id)
)
_INSERT_PROFILES = insert_arrays(user_profiles, _PROFILES)
_INSERT_PASSWORDS = insert_arrays(user_passwords, _PASSWORDS)

_HAS_EMAIL = any_(bindparam("emails", type_=ARRAY(Text))) == folded_email


class Users:
    """Implements `service.application.ports.unit_of_work.UserRepository`.

    Args:
        transaction: the transaction to work in.
        events: collects the events of users that are written by a statement instead of the session.
        encode: returns the encoded message of a user, which is written with its row.
    """

    def __init__(
        self, transaction: LazyTransaction, events: RecordedEvents, encode: Callable[[User], bytes | None]
    ) -> None:
        self._transaction = transaction
        self._events = events
        self._encode = encode

    async def add(self, user: User, password_hash: str) -> None:
        """Insert a new user; raises UserAlreadyExists."""
        session = await self._transaction.session()
        session.add(user)
        await session.flush()
        values = {"user_id": user.id, "password_hash": password_hash, "update_time": user.create_time}
        await session.execute(insert(user_passwords), values)

    async def get_for_update(self, user_id: UUID) -> User:
        """Return the user, locked against other changes; raises UserNotFound."""
        # FOR NO KEY UPDATE: new orders of the user, which only need its key, do not wait for this.
        return await self._get(user_id, selectinload(User.profile), key_share=True)  # type: ignore[arg-type] # mapped imperatively

    async def get_for_purge(self, user_id: UUID) -> User:
        """Return the user, locked against every use, and lock those who pay for its orders; raises UserNotFound."""
        session = await self._transaction.session()
        of_others = (orders.c.credit_user_id != user_id) & (orders.c.credit_state == CreditState.HELD)
        paying = select(orders.c.credit_user_id).distinct().where(orders.c.user_id == user_id, of_others)
        payers = set(await session.scalars(paying))
        user: User | None = None
        for locked_id in sorted({user_id, *payers}):
            if locked_id == user_id:
                # FOR UPDATE, because a purge deletes the key. A weaker lock would be upgraded later, while others that
                # have locked the key wait for what the purge has locked.
                user = await self._get(user_id, selectinload(User.profile))  # type: ignore[arg-type] # mapped imperatively
            else:
                key = select(users.c.id).where(users.c.id == locked_id)
                await session.execute(key.with_for_update(read=True, key_share=True))
        # From here on, nobody gives this user an order.
        if user is None or not payers.issuperset(await session.scalars(paying)):
            raise Contention
        return user

    async def get_for_share(self, user_id: UUID) -> User:
        """Return the user, locked so that it stays as it is; raises UserNotFound."""
        return await self._get(user_id, read=True)

    async def require_active(self, user_id: UUID, action: str) -> None:
        """Require the user to be ACTIVE until the commit; raises UserNotFound and UserNotActive."""
        (await self.get_for_share(user_id)).require_active(action)

    async def has_open_orders_or_credit(self, user_id: UUID) -> bool:
        """Return whether the user has open orders or credit, so that a purge needs `force`."""
        session = await self._transaction.session()
        open_orders = exists().where(orders.c.user_id == user_id, OPEN)
        accounts = credit_accounts.c
        credit = exists().where(accounts.user_id == user_id, (accounts.available > 0) | (accounts.held > 0))
        return bool(await session.scalar(select(open_orders | credit)))

    async def purge(self, user: User) -> int:
        """Delete the user and everything that belongs to it, and return the number of its orders."""
        session = await self._transaction.session()
        own_orders = select(orders.c.id).where(orders.c.user_id == user.id)
        await session.execute(delete(events).where(events.c.aggregate_id.in_(own_orders)))
        await session.execute(delete(events).where(events.c.aggregate_id == user.id))
        await delete_responses_about_user(session, user.id)
        await self._purge_entries(session, user.id)
        await session.execute(delete(credit_accounts).where(credit_accounts.c.user_id == user.id))
        deleted = await session.scalars(delete(orders).where(orders.c.user_id == user.id).returning(orders.c.id))
        order_count = len(deleted.all())
        await session.execute(delete(users).where(users.c.id == user.id))
        session.expunge(user)
        return order_count

    async def _purge_entries(self, session: AsyncSession, user_id: UUID) -> None:
        """Delete the ledger entries of the user.

        Where another user has a part in the transaction, an entry of the account PURGED replaces that of this user.
        """
        own, other = credit_entries.c, credit_entries.alias("other").c
        with_others = exists().where(other.transaction_id == own.transaction_id, other.user_id != user_id)
        anonymous = select(
            func.gen_random_uuid(),
            own.transaction_id,
            literal("PURGED"),
            own.type,
            own.currency,
            own.amount,
            literal(""),
            literal(""),
            own.create_time,
        ).where(own.user_id == user_id, with_others)
        copied = (
            "id",
            "transaction_id",
            "account",
            "type",
            "currency",
            "amount",
            "description",
            "actor",
            "create_time",
        )
        await session.execute(insert(credit_entries).from_select(copied, anonymous))
        transactions = select(other.transaction_id).where(other.user_id == user_id)
        nobodys = own.user_id.is_(None) & own.transaction_id.in_(transactions) & ~with_others
        await session.execute(delete(credit_entries).where((own.user_id == user_id) | nobodys))

    async def ids_by_email(self, emails: Sequence[str]) -> Mapping[str, UUID]:
        """Return the ids of the users with these e-mails, by e-mail in lower case."""
        session = await self._transaction.session()
        found = await session.execute(
            select(folded_email.label("email"), users.c.id).where(_HAS_EMAIL), {"emails": emails}
        )
        return {row.email: row.id for row in found}

    async def by_email_for_update(self, emails: Sequence[str]) -> Mapping[str, User]:
        """Return the users with these e-mails, by e-mail in lower case, locked against other changes."""
        session = await self._transaction.session()
        profile = selectinload(User.profile)  # type: ignore[arg-type] # mapped imperatively
        # By id, the order in which every transaction locks users.
        statement = select(User).options(profile).where(_HAS_EMAIL).order_by(users.c.id)
        found = await session.scalars(statement.with_for_update(key_share=True), {"emails": emails})
        return {folded(user.email): user for user in found}

    async def add_all(self, new: Sequence[User], password_hashes: Mapping[UUID, str]) -> None:
        """Insert new users, some of them with a password; raises UserAlreadyExists and Contention."""
        if not new:
            return
        session = await self._transaction.session()
        # By e-mail: two imports of the same users insert in one order, so they do not deadlock.
        ordered = sorted(new, key=lambda user: folded(user.email))
        rows = [[*(getattr(user, name) for name in _USERS), self._encode(user), user_vector(user)] for user in ordered]
        try:
            with translated_errors():
                inserted = (await session.scalars(_INSERT_USERS, arrays(_INSERTED, rows))).all()
        except UserAlreadyExists as error:
            if error.field == "email":
                # The older of the two unique indexes noticed a concurrent import first.
                raise Contention from error
            raise
        if len(inserted) < len(new):
            raise Contention
        profiles = [(user.id, user.bio, user.avatar_url) for user in new]
        await session.execute(_INSERT_PROFILES, arrays(_PROFILES, profiles))
        passwords = [
            (user.id, password_hashes[user.id], user.create_time) for user in new if user.id in password_hashes
        ]
        if passwords:
            await session.execute(_INSERT_PASSWORDS, arrays(_PASSWORDS, passwords))
        for user in new:
            self._events.collect(user)

    async def set_password_hash(self, user_id: UUID, password_hash: str, now: datetime) -> None:
        """Set the password hash of a user that exists."""
        session = await self._transaction.session()
        values = {"password_hash": password_hash, "update_time": now}
        statement = pg_insert(user_passwords).values(user_id=user_id, **values)
        await session.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))

    async def replace_password_hash(self, user_id: UUID, old: str, new: str, now: datetime) -> None:
        """Replace the password hash if it is still `old`."""
        session = await self._transaction.session()
        statement = update(user_passwords).where(
            user_passwords.c.user_id == user_id, user_passwords.c.password_hash == old
        )
        await session.execute(statement.values(password_hash=new, update_time=now))

    async def encode_missing(self, limit: int) -> int:
        """Store encoded messages of up to `limit` users that have none and are not locked.

        Returns the number of users updated.
        """
        session = await self._transaction.session()
        profile = selectinload(User.profile)  # type: ignore[arg-type] # mapped imperatively
        statement = select(User).options(profile).where(users.c.message.is_(None)).order_by(users.c.id).limit(limit)
        found = (await session.scalars(statement.with_for_update(key_share=True, skip_locked=True))).all()
        messages = [(user, self._encode(user)) for user in found]
        for user, message in messages:
            set_attribute(user, "message", message)
        # Without encoders no user gets a message, and the caller must not ask again.
        return sum(message is not None for _, message in messages)

    async def write_words(self, limit: int) -> int:
        """Write the words of up to `limit` users whose words a trigger wrote and that are not locked.

        Returns the number of users updated.
        """
        session = await self._transaction.session()
        profile = selectinload(User.profile)  # type: ignore[arg-type] # mapped imperatively
        statement = select(User).options(profile).where(are_approximate(users.c.search)).order_by(users.c.id)
        statement = statement.limit(limit).with_for_update(key_share=True, skip_locked=True)
        found = (await session.scalars(statement)).all()
        for user in found:
            set_attribute(user, "search", user_vector(user))
        return len(found)

    async def _get(
        self, user_id: UUID, *options: ExecutableOption, read: bool = False, key_share: bool = False
    ) -> User:
        session = await self._transaction.session()
        statement = (
            select(User).options(*options).where(users.c.id == user_id).with_for_update(read=read, key_share=key_share)
        )
        user = await session.scalar(statement)
        if user is None:
            raise UserNotFound(str(user_id))
        return user
