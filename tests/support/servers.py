"""Servers that run in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from service.config import ServerSettings, load
from service.db.tables import metadata
from service.server import Server
from tests.support.clients import Clients, connect
from tests.support.databases import cloned, driver_connection
from tests.support.passwords import FAST_PASSWORDS


@asynccontextmanager
async def running_server(database_url: str, **settings: object) -> AsyncIterator[Server]:
    """Run a server until the block ends."""
    server = Server(load(ServerSettings, **{"DATABASE_URL": database_url, "port": 0, **FAST_PASSWORDS, **settings}))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace=1)


@asynccontextmanager
async def serving_clients(database_url: str, **settings: object) -> AsyncIterator[Clients]:
    """Run a server until the block ends; yields stubs on a channel to it."""
    async with running_server(database_url, **settings) as server, connect(server.port) as clients:
        yield clients


@dataclass(frozen=True)
class OwnServer:
    """A server with a database that only it and the test use."""

    clients: Clients
    database_url: str
    connection: asyncpg.Connection

    async def contents(self) -> dict[str, tuple[int, int]]:
        """Return the number of rows and a digest of all values of every table, the same in a copy of the database."""
        return await self._of_every_table("hashtextextended(t::text, 0)")

    async def versions(self) -> dict[str, tuple[int, int]]:
        """Return the number of rows and the sum of their versions of every table: equal only if nothing was written.

        The version of a row is the number of the transaction that wrote it. A later write has a larger one, so no write
        leaves both numbers as they were. Reading no values, this takes a fifth of the time of `contents`.
        """
        return await self._of_every_table("xmin::text::bigint")

    async def _of_every_table(self, number_of_row: str) -> dict[str, tuple[int, int]]:
        tables = ", ".join(
            f"(SELECT ARRAY[count(*), coalesce(sum({number_of_row}), 0)] FROM {name} t) AS {name}"
            for name in metadata.tables
        )
        row = await self.connection.fetchrow(f"SELECT {tables}")
        return {name: (int(count), int(total)) for name, (count, total) in row.items()}

    async def rows(self) -> dict[str, int]:
        """Return the number of rows of every table."""
        return {name: count for name, (count, _) in (await self.versions()).items()}


@asynccontextmanager
async def own_server(postgres_url: str, template_url: str, **settings: object) -> AsyncIterator[OwnServer]:
    """Run a server on a clone of the template until the block ends."""
    async with (
        cloned(postgres_url, template_url) as url,
        serving_clients(url, **settings) as clients,
        driver_connection(url) as connection,
    ):
        yield OwnServer(clients, url, connection)
