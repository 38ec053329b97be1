"""The decisions on a real database, without a server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from service.config import DatabaseSettings, PasswordSettings, load
from service.db.database import Database
from service.passwords import Argon2Passwords
from service.server import MESSAGE_ENCODERS
from tests.support.passwords import FAST_PASSWORDS


@pytest.fixture(scope="session")
async def store(shared_database_url: str) -> AsyncIterator[Database]:
    """The database that tests share: each makes users of its own."""
    store = Database(load(DatabaseSettings, DATABASE_URL=shared_database_url), MESSAGE_ENCODERS)
    yield store
    await store.close()


@pytest.fixture(scope="session")
def passwords() -> Iterator[Argon2Passwords]:
    passwords = Argon2Passwords(load(PasswordSettings, **FAST_PASSWORDS))
    yield passwords
    passwords.close()
