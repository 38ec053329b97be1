"""Provide the database that all servers of a benchmark share, migrated and filled; later runs use it again."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import click

from benchmarks import data
from benchmarks.cpu import cpu_seconds
from service.config import DatabaseSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations import migrate
from service.db.writes.encoded_messages import MESSAGE_VERSION, MESSAGE_VERSION_SETTING
from service.devtools.embedded_postgres import embedded_postgres

# Commits are durable, as by default. The data fits into memory, and no checkpoint or autovacuum starts during a
# measurement: the benchmark runs CHECKPOINT and VACUUM between measurements.
_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    # The peers store no encoded messages. With this setting, the triggers that invalidate stale messages do not run.
    MESSAGE_VERSION_SETTING: MESSAGE_VERSION,
}
_UNFINISHED = "filling"
# Reads the whole database into the page cache, so that the server that is measured first does not wait for the disk.
_READ_ALL = """
    CREATE EXTENSION IF NOT EXISTS pg_prewarm;
    SELECT pg_prewarm(oid, 'read') FROM pg_class
    WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace;
"""


@dataclass(frozen=True)
class Database:
    """A filled database."""

    url: str
    data: data.Data
    # The pid of the postmaster; None for the PostgreSQL of DATABASE_URL, whose processes may not be visible here.
    pid: int | None
    version: str

    async def reset(self) -> None:
        """Undo what workloads wrote, and write a checkpoint."""
        await data.reset(self.url, self.data)
        connection = await asyncpg.connect(self.url)
        await connection.execute("CHECKPOINT")
        await connection.close()

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of PostgreSQL, or None if its processes are not visible."""
        return None if self.pid is None else cpu_seconds(self.pid)


@contextmanager
def filled_database(folder: Path, wanted: data.Data, url: str | None = None) -> Iterator[Database]:
    """Yield the database of a URL, filled if it is empty, or that of an embedded PostgreSQL with its data in `folder`.

    The embedded database is in the page cache when the block begins, as far as it fits.

    Raises:
        click.ClickException: the database of the URL holds other data.

    """
    if url is not None:
        plain = _plain(url)
        click.echo("Using the database of DATABASE_URL")
        asyncio.run(_fill_if_empty(plain, wanted))
        yield Database(plain, wanted, None, asyncio.run(_version(plain)))
        return
    name = f"commerce_{_digest(wanted)}"
    with embedded_postgres(folder, settings=_SETTINGS) as postgres_url:
        if asyncio.run(_make_room(_plain(postgres_url), name)):
            asyncio.run(_migrate(_plain(postgres_url, _UNFINISHED)))
            asyncio.run(_fill(_plain(postgres_url, _UNFINISHED), wanted))
            asyncio.run(_execute(_plain(postgres_url), f'ALTER DATABASE "{_UNFINISHED}" RENAME TO "{name}"'))
        pid = int((folder / "pgdata" / "postmaster.pid").read_text().split("\n", 1)[0])
        own_url = _plain(postgres_url, name)
        asyncio.run(_execute(own_url, _READ_ALL))
        yield Database(own_url, wanted, pid, asyncio.run(_version(own_url)))


def _digest(wanted: data.Data) -> str:
    """Return a digest of the schema and the data, so that a change of either fills a new database."""
    text = f"{wanted.users} {wanted.orders} {migrate.head()} {Path(data.__file__).read_text()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(url: str, name: str | None = None) -> str:
    """Return a URL without SQLAlchemy's driver name, with the name of another database if one is given."""
    parts = async_url(url).set(drivername="postgresql")
    return (parts if name is None else parts.set(database=name)).render_as_string(hide_password=False)


async def _make_room(url: str, name: str) -> bool:
    """Unless a database of this name exists, drop all earlier ones, create an empty one and return True."""
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
    names = [row["datname"] for row in found]
    if missing := name not in names:
        for earlier in names:
            await connection.execute(f'DROP DATABASE "{earlier}"')
        await connection.execute(f'CREATE DATABASE "{_UNFINISHED}"')
    await connection.close()
    return missing


async def _fill_if_empty(url: str, wanted: data.Data) -> None:
    await _migrate(url)
    connection = await asyncpg.connect(url)
    empty = not await connection.fetchval("SELECT EXISTS (SELECT FROM users)")
    # The last user and the last order must match, because a reset deletes all orders after the last one.
    ours = await connection.fetchval(
        "SELECT (SELECT id FROM users ORDER BY id DESC LIMIT 1) = $1::uuid"
        " AND EXISTS (SELECT FROM orders WHERE id = $2::uuid) AND NOT EXISTS (SELECT FROM orders WHERE id = $3::uuid)",
        wanted.user_id(wanted.users),
        wanted.order_id(wanted.orders),
        wanted.order_id(wanted.orders + 1),
    )
    await connection.close()
    if empty:
        await _fill(url, wanted)
    elif not ours:
        raise click.ClickException("the database of DATABASE_URL holds other data: use an empty database")


async def _fill(url: str, wanted: data.Data) -> None:
    click.echo(f"Filling the database with {wanted.users} users and {wanted.orders} orders")
    await data.fill(url, wanted.users, wanted.orders)


async def _migrate(url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    await migrate.upgrade(engine)
    await engine.dispose()


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    version: str = await connection.fetchval("SHOW server_version")
    await connection.close()
    return version


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()
