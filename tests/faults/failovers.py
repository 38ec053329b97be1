"""A primary PostgreSQL and its synchronous standby, which takes over when the primary is killed."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from service.db.connections.engine import async_url
from tests.support.databases import driver_connection
from tests.support.own_postgres import OwnPostgres
from tests.support.replicas import copy_of
from tests.support.waiting import eventually

# A standby looks this often whether its primary is back; meanwhile, commits wait for it.
_SETTINGS = {"wal_keep_size": "1GB", "wal_retrieve_retry_interval": "200ms"}


class Pair:
    """Two nodes of PostgreSQL: commits are acknowledged once both have them.

    Attributes:
        primary: the node that accepts writes.
        standby: the other one; None while it is being made.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = [folder / "a", folder / "b"]
        self.primary = OwnPostgres(self._folders[0], _SETTINGS)
        self.standby: OwnPostgres | None = None
        self._database = ""

    @property
    def url(self) -> str:
        """URL that leads to the database on the node that accepts writes."""
        nodes = [self.primary, *([self.standby] if self.standby else [])]
        hosts = ",".join(str(async_url(node.url).query["host"]) for node in nodes)
        ports = ",".join("5432" for _ in nodes)
        query = f"host={quote(hosts, safe='/,')}&port={ports}&target_session_attrs=read-write"
        return f"postgresql://postgres@/{self._database}?{query}"

    @property
    def primary_url(self) -> str:
        """URL of the database on the primary."""
        return async_url(self.primary.url).set(database=self._database).render_as_string(hide_password=False)

    async def start(self) -> None:
        """Start both nodes, with a migrated database."""
        self.primary.start()
        self._database = str(async_url(await self.primary.migrated_database()).database)
        await self._make_standby(OwnPostgres(self._folders[1], _SETTINGS))

    def stop(self) -> None:
        """Stop both nodes."""
        for node in (self.standby, self.primary):
            if node:
                node.stop()

    async def fail_over(self) -> None:
        """Kill the primary, promote the standby, and make a new standby of the killed node."""
        assert self.standby
        await self.until_in_sync()
        killed = self.primary
        killed.kill()
        self.primary, self.standby = self.standby, None
        async with driver_connection(self.primary.url) as connection:
            await connection.execute("SELECT pg_promote()")
        await self._make_standby(killed)

    async def restart(self) -> None:
        """Kill all processes of the primary, and start it again."""
        self.primary.kill()
        self.primary.start()
        await self.primary.until_accepting(self.primary.url)

    async def until_in_sync(self) -> None:
        """Wait until the standby has everything that was committed so far."""
        query = """
            SELECT count(*) FROM pg_stat_replication
            WHERE sync_state = 'sync' AND state = 'streaming' AND flush_lsn >= $1::text::pg_lsn
        """
        async with driver_connection(self.primary.url) as connection:
            position = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
            await eventually(lambda: connection.fetchval(query, position), 60)

    async def _make_standby(self, node: OwnPostgres) -> None:
        shutil.rmtree(node.folder, ignore_errors=True)
        await copy_of(self.primary.url, node.folder)
        node.start()
        self.standby = node
        async with driver_connection(self.primary.url) as connection:
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await connection.execute("SELECT pg_reload_conf()")
        await self.until_in_sync()


@asynccontextmanager
async def running_pair(folder: Path) -> AsyncIterator[Pair]:
    """Run a primary and its standby until the block ends. Call it from the main thread."""
    pair = Pair(folder)
    try:
        await pair.start()
        yield pair
    finally:
        pair.stop()
