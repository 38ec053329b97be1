"""Users and units of work of a database without a server."""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from uuid import uuid4

from service.application.ports.unit_of_work import UnitOfWork
from service.db.database import Database
from service.domain.users import User, UserFields

NOW = datetime(2026, 1, 2, tzinfo=UTC)
# No password has this hash.
SOME_HASH = "$argon2id$"


def unit_of_work(store: Database) -> AbstractAsyncContextManager[UnitOfWork]:
    """Return a unit of work of the tests."""
    return store.unit_of_work(actor="tests", request=None, time_left=lambda: 30.0)


def some_user() -> UserFields:
    """Return the fields of a user with a name of its own."""
    name = f"u{uuid4().hex[:20]}"
    return {"email": f"{name}@example.com", "username": name}


async def add_user(store: Database) -> User:
    """Create an ACTIVE user who cannot sign in."""
    async with unit_of_work(store) as uow:
        user = User.create(some_user(), NOW)
        await uow.users.add(user, SOME_HASH)
        await uow.commit(b"")
    return user
