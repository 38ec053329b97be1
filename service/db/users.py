"""The write side of users."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, exists, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.sql.base import ExecutableOption

from service.db.tables import OPEN, credit_accounts, credit_entries, events, order_notes, orders, user_passwords, users
from service.domain.errors import UserNotFound
from service.domain.users import User


class Users:
    """Implements `service.application.ports.UserRepository` in the transaction that `begin` gives."""

    def __init__(self, begin: Callable[[], Awaitable[AsyncSession]]) -> None:
        self._begin = begin

    async def add(self, user: User, password_hash: str) -> None:
        """Keep a new user; UserAlreadyExists comes from here."""
        session = await self._begin()
        session.add(user)
        await session.flush()
        values = {"user_id": user.id, "password_hash": password_hash, "update_time": user.create_time}
        await session.execute(insert(user_passwords), values)

    async def get_for_update(self, user_id: UUID) -> User:
        """Return the user, locked against other changes; raises UserNotFound."""
        # FOR NO KEY UPDATE: new orders of the user only need its key, and go on.
        return await self._get(user_id, selectinload(User.profile), key_share=True)  # type: ignore[arg-type] # mapped imperatively

    async def get_for_share(self, user_id: UUID) -> User:
        """Return the user, locked so that it stays as it is; raises UserNotFound."""
        return await self._get(user_id, read=True)

    async def has_open_orders_or_credit(self, user_id: UUID) -> bool:
        """Return whether there is something that a purge needs `force` for."""
        session = await self._begin()
        open_orders = exists().where(orders.c.user_id == user_id, OPEN)
        accounts = credit_accounts.c
        credit = exists().where(accounts.user_id == user_id, (accounts.available > 0) | (accounts.held > 0))
        return bool(await session.scalar(select(open_orders | credit)))

    async def purge(self, user: User) -> int:
        """Erase the user and everything that is its own, and return the number of its orders."""
        session = await self._begin()
        await session.flush()
        own_orders = select(orders.c.id).where(orders.c.user_id == user.id)
        await session.execute(delete(events).where(events.c.aggregate_id.in_(own_orders)))
        await session.execute(delete(events).where(events.c.aggregate_id == user.id))
        # On orders of others; those on its own go with them.
        await session.execute(delete(order_notes).where(order_notes.c.author_id == user.id))
        # Orders of others that this user's credit pays for.
        paid = update(orders).where(orders.c.credit_user_id == user.id, orders.c.user_id != user.id)
        await session.execute(paid.values(credit_state=None, credit_user_id=None, credit_expire_time=None))
        await self._purge_entries(session, user.id)
        await session.execute(delete(credit_accounts).where(credit_accounts.c.user_id == user.id))
        deleted = await session.scalars(delete(orders).where(orders.c.user_id == user.id).returning(orders.c.id))
        order_count = len(deleted.all())
        await session.execute(delete(users).where(users.c.id == user.id))
        session.expunge(user)
        return order_count

    async def _purge_entries(self, session: AsyncSession, user_id: UUID) -> None:
        """Delete the user's transactions; where another user has a part, put nobody in this one's place."""
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

    async def set_password_hash(self, user_id: UUID, password_hash: str, now: datetime) -> None:
        """Replace the hash of a user that exists."""
        session = await self._begin()
        statement = update(user_passwords).where(user_passwords.c.user_id == user_id)
        await session.execute(statement.values(password_hash=password_hash, update_time=now))

    async def replace_password_hash(self, user_id: UUID, old: str, new: str, now: datetime) -> None:
        """Replace the hash, unless it is no longer `old`."""
        session = await self._begin()
        statement = update(user_passwords).where(
            user_passwords.c.user_id == user_id, user_passwords.c.password_hash == old
        )
        await session.execute(statement.values(password_hash=new, update_time=now))

    async def _get(
        self, user_id: UUID, *options: ExecutableOption, read: bool = False, key_share: bool = False
    ) -> User:
        session = await self._begin()
        statement = (
            select(User).options(*options).where(users.c.id == user_id).with_for_update(read=read, key_share=key_share)
        )
        user = await session.scalar(statement)
        if user is None:
            raise UserNotFound(str(user_id))
        return user
