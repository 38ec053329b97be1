"""Databases of tests, connections to them, and an observer of the service's connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from uuid import uuid4

import asyncpg

from service.config import DatabaseSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations import migrate
from tests.support.paths import ROOT
from tests.support.waiting import eventually

# Settings of a server whose data no test needs after the machine has failed. The end of its processes loses nothing.
NOT_DURABLE = {"fsync": "off"}

TEMPLATE = "commerce_template"
UNFINISHED_TEMPLATE = f"{TEMPLATE}_unfinished"
# An advisory lock, so that only one of the test runs that share a server creates the template.
TEMPLATE_LOCK = 0x74656D706C617465


@asynccontextmanager
async def driver_connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection beside the service's, as another program would."""
    parts = async_url(url)
    connection = await asyncpg.connect(
        user=parts.username,
        password=parts.password,
        database=parts.database,
        host=parts.host or parts.query.get("host"),
        port=parts.port or int(str(parts.query.get("port", 5432))),
    )
    try:
        yield connection
    finally:
        await connection.close()


async def create_database(postgres_url: str, name: str, *, template: str) -> str:
    """Create a database from a template, and return its URL."""
    async with driver_connection(postgres_url) as connection:
        # Copying the files is faster, unless PostgreSQL waits until they are on the disk.
        strategy = "file_copy" if await connection.fetchval("SHOW fsync") == "off" else "wal_log"
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {strategy}')
    return async_url(postgres_url).set(database=name).render_as_string(hide_password=False)


async def drop_database(postgres_url: str, name: str) -> None:
    """Drop a database, and end the connections to it."""
    async with driver_connection(postgres_url) as connection:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def migrated_template(postgres_url: str) -> str:
    """Return the URL of a database that has all migrations; create it unless an earlier run has."""
    migrations = b"".join(path.read_bytes() for path in sorted((ROOT / "migrations").rglob("*.py")))
    name = f"{TEMPLATE}_{sha256(migrations).hexdigest()[:16]}"
    async with driver_connection(postgres_url) as connection:
        # PostgreSQL releases the lock when the connection ends.
        await connection.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            # Under another name first: a run that is killed meanwhile leaves no incomplete template.
            await connection.execute(f"DROP DATABASE IF EXISTS {UNFINISHED_TEMPLATE}")
            url = await create_database(postgres_url, UNFINISHED_TEMPLATE, template="template0")
            engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
            await migrate.upgrade(engine)
            await engine.dispose()
            await connection.execute(f"ALTER DATABASE {UNFINISHED_TEMPLATE} RENAME TO {name}")
    return async_url(postgres_url).set(database=name).render_as_string(hide_password=False)


@asynccontextmanager
async def cloned(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """Clone a database, and drop the clone when the block ends; yields its URL."""
    name = f"test_{uuid4().hex[:12]}"
    url = await create_database(postgres_url, name, template=str(async_url(template_url).database))
    try:
        yield url
    finally:
        await drop_database(postgres_url, name)


class Observer:
    """A connection of the test, which watches the service's connections in pg_stat_activity."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def backends(self, *, waiting: bool = False) -> set[int]:
        """Return the process ids of the service's backends: all, or only those that wait for a lock."""
        rows = await self.connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'commerce'"
            " AND (wait_event_type = 'Lock' OR NOT $1)",
            waiting,
        )
        return {row["pid"] for row in rows}

    async def until_waiting(self, count: int) -> set[int]:
        """Wait until this many calls wait for a lock, and return their backends' process ids."""

        async def waiting() -> set[int]:
            pids = await self.backends(waiting=True)
            return pids if len(pids) == count else set()

        pids: set[int] = await eventually(waiting)
        return pids

    async def until_idle(self) -> None:
        """Wait until all of the service's connections are idle."""
        await eventually(
            lambda: self.connection.fetchval(
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'commerce' AND state <> 'idle'"
            )
        )

    async def terminate(self, pids: set[int]) -> None:
        """Terminate these backends, and wait until they have ended."""
        for pid in pids:
            assert await self.connection.fetchval("SELECT pg_terminate_backend($1, 10000)", pid)

    async def count(self, table: str, condition: str = "true", *values: object) -> int:
        """Return how many rows of a table meet the condition."""
        query = f"SELECT count(*) FROM {table} WHERE {condition}"
        number: int = await self.connection.fetchval(query, *values)
        return number


@asynccontextmanager
async def observing(url: str) -> AsyncIterator[Observer]:
    """Open a connection beside the service's."""
    async with driver_connection(url) as connection:
        yield Observer(connection)
