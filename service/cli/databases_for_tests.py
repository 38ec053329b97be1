"""The databases of the servers for the tests of callers (`service.cli.serve_tests`): clones of a migrated one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from service.cli.running import single_connection
from service.config import DatabaseSettings, load
from service.db.connections.engine import async_url
from service.db.operations import migrate

# PostgreSQL creates it together with its files, so migrating it takes less time than creating another.
_TEMPLATE = "template1"


class DatabasesForTests:
    """Creates and deletes databases of a PostgreSQL server."""

    def __init__(self, postgres_url: str, postgres: asyncpg.Connection) -> None:
        self._postgres_url = postgres_url
        self._postgres = postgres
        self._one_statement = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def of(cls, postgres_url: str) -> AsyncIterator["DatabasesForTests"]:
        """Connect to the database `postgres` of the server until the block ends."""
        # asyncpg does not accept the name of a driver in the URL.
        postgres = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            yield cls(postgres_url, postgres)
        finally:
            await postgres.close()

    async def create(self, name: str) -> str:
        """Create a database, and return its URL."""
        # Copying files takes a third of the time where the checkpoints that it needs cost nothing.
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        return _url(self._postgres_url, name)

    async def drop(self, name: str) -> None:
        """Delete a database, and end the connections to it."""
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        async with self._one_statement:
            await self._postgres.execute(statement)


async def migrate_template(postgres_url: str) -> None:
    """Migrate the database that all others are clones of."""
    settings = load(DatabaseSettings, DATABASE_URL=_url(postgres_url, _TEMPLATE))
    async with single_connection(settings) as engine:
        await migrate.upgrade(engine)


def _url(postgres_url: str, name: str) -> str:
    return async_url(postgres_url).set(database=name).render_as_string(hide_password=False)
