"""The write side of users."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.sql.base import ExecutableOption

from service.db.tables import user_passwords, users
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
