"""A real streaming replica: a second PostgreSQL, made from the first by `pg_basebackup`."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from service.db.connections.engine import async_url
from service.devtools.embedded_postgres import embedded_postgres
from tests.support.databases import driver_connection
from tests.support.waiting import eventually


async def copy_of(primary_url: str, folder: Path) -> None:
    """Create the data directory of a replica in a folder."""
    async with driver_connection(primary_url) as connection:
        programs = await connection.fetchval("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
    url = async_url(primary_url)
    where = ("-h", str(url.query["host"]), "-p", str(url.query["port"]), "-U", str(url.username))
    folder.mkdir(mode=0o700)  # noqa: ASYNC240 - takes no time
    subprocess.run(  # noqa: ASYNC221 - takes a second
        [Path(programs) / "pg_basebackup", *where, "-D", folder / "pgdata", "-R", "-c", "fast"], check=True
    )


class Replica:
    """A running replica.

    Attributes:
        url: of the database `postgres` there.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.url = url

    def database(self, url: str) -> str:
        """Return the URL of the replica's copy of a database of the primary."""
        return async_url(self.url).set(database=async_url(url).database).render_as_string(hide_password=False)

    def kill(self) -> None:
        """Kill all its processes together, as a power failure would."""
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes until the block ends; its connections stay open."""
        stopped = self._processes()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    async def until_replayed(self, primary_url: str) -> None:
        """Wait until it has replayed everything committed on the primary so far."""
        async with driver_connection(primary_url) as primary, driver_connection(self.url) as replica:
            position = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
            await eventually(lambda: replica.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position))

    @asynccontextmanager
    async def paused(self, primary_url: str) -> AsyncIterator[asyncpg.Connection]:
        """Pause replay until the block ends: later commits on the primary do not become visible."""
        await self.until_replayed(primary_url)
        async with driver_connection(self.url) as connection:
            await connection.execute("SELECT pg_wal_replay_pause()")
            await eventually(lambda: connection.fetchval("SELECT pg_get_wal_replay_pause_state() = 'paused'"))
            try:
                yield connection
            finally:
                await connection.execute("SELECT pg_wal_replay_resume()")

    def _processes(self) -> list[int]:
        postmaster = int((self._folder / "pgdata" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]


@contextmanager
def running_replica(folder: Path) -> Iterator[Replica]:
    """Run the replica in a folder until the block ends."""
    with embedded_postgres(folder) as url:
        yield Replica(folder, url)
