"""A streaming replica for reads, used while its data is known to be no older than a bound.

How old that is cannot be asked of the replica: on an idle primary the last transaction it has replayed is old, and
nothing is missing. So the primary is asked, a few times in a second, how far its log is written, and the replica how
far it has replayed that log. All that was committed before the newest sample that it has replayed is in its data, so
the lag is the age of that sample: it grows by itself while nothing is heard of either server, or replay stands still.

(With `synchronous_commit` off, PostgreSQL shows what is not in its log yet: the lag is then up to three
`wal_writer_delay`s more.)
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import structlog
from sqlalchemy import ColumnElement, Row, Select, event, literal_column, select

from service.application.ports.errors import DatabaseUnavailable, DeadlineExceeded, Overloaded
from service.config import ServerSettings, SettingsError
from service.db.connections.engine import async_url, create_engine
from service.db.connections.executor import StatementExecutor
from service.db.connections.statement import Statement
from service.observability.logs import where_raised

# Between two looks, and how long one may take.
_PERIOD_SECONDS = 0.25
_PATIENCE_SECONDS = 2.0

# A cluster and its copies have one number, the cluster that a copy became when it was promoted another timeline, and a
# cluster can have several databases. The log tells the primary's timeline at once; a replica's can be as old as its
# last restart point, so after a failover it takes some minutes until they are the same again.
_DATABASE: tuple[ColumnElement[Any], ...] = (
    literal_column("(SELECT system_identifier FROM pg_control_system())").label("cluster"),
    literal_column("(SELECT oid FROM pg_database WHERE datname = current_database())").label("database"),
)
_SAME = ("cluster", "database", "timeline")
_PRIMARY = Statement(
    "primary_position",
    select(
        literal_column("pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')").label("position"),
        literal_column("left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)").label("timeline"),
        *_DATABASE,
    ),
)
_REPLICA = Statement(
    "replica_position",
    select(
        literal_column("pg_is_in_recovery()").label("is_replica"),
        literal_column("pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')").label("position"),
        literal_column("(SELECT upper(lpad(to_hex(timeline_id), 8, '0')) FROM pg_control_checkpoint())").label(
            "timeline"
        ),
        *_DATABASE,
    ),
)

log = structlog.get_logger()


class Replica:
    """The replica at READ_DATABASE_URL: `start`, then `rows`, then `close`."""

    def __init__(self, settings: ServerSettings) -> None:
        if settings.read_database_url is None:
            raise SettingsError("READ_DATABASE_URL is not set")
        # Also checks it, under its own name.
        async_url(settings.read_database_url.get_secret_value(), "READ_DATABASE_URL")
        there = settings.model_copy(update={"database_url": settings.read_database_url})
        self._max_lag = settings.max_replica_lag
        self._engine = create_engine(there)
        self._executor = StatementExecutor(self._engine)
        # Apart, so that a busy pool does not look like a lost server.
        self._probe_engines = [create_engine(settings, pool_size=1), create_engine(there, pool_size=1)]
        self._primary_probe, self._replica_probe = map(StatementExecutor, self._probe_engines)
        # Times, and how far the primary's log was written then.
        self._samples: deque[tuple[float, float]] = deque()
        # All that was committed before this time is in the replica's data.
        self._fresh_at = -math.inf
        # As logged.
        self._in_use: bool | None = None
        self._task: asyncio.Task[None] | None = None
        self._connections: WeakSet[Any] = WeakSet()
        event.listen(self._engine.sync_engine, "connect", self._keep_connection)

    async def start(self) -> None:
        """Look at the replica once, and again and again from then on; what is wrong with it is only logged."""
        await self._look()
        self._task = asyncio.create_task(self._watch())

    async def rows(
        self, statement: Statement | Select[Any], values: Mapping[str, object], otherwise: StatementExecutor
    ) -> Sequence[Row[Any]]:
        """Return all rows of a statement: from the replica, or where that cannot be, from the primary.

        Raises:
            DeadlineExceeded, Overloaded: the replica has too much to do.
            StoreError: the primary failed.
        """
        if self._lag() <= self._max_lag:
            try:
                return await self._executor.rows(statement, values)
            except Exception as error:
                if isinstance(error, DatabaseUnavailable):
                    self._fresh_at = -math.inf
                    self._log_use("the connection was lost", error)
                elif isinstance(error, DeadlineExceeded | Overloaded):
                    # While it works, what is too much for it is too much for the primary as well.
                    if self._lag() <= self._max_lag:
                        raise
                else:
                    # Whatever it is, a conflict with what is replayed or a table that is not there yet.
                    log.info("read from the primary: the replica failed", **where_raised(error))
        return await otherwise.rows(statement, values)

    async def close(self) -> None:
        """Look no more, and close the connections."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for engine in (self._engine, *self._probe_engines):
            await engine.dispose()

    def _lag(self) -> float:
        return time.monotonic() - self._fresh_at

    async def _watch(self) -> None:
        while True:
            # Often enough that the samples alone do not use up the bound.
            await asyncio.sleep(min(_PERIOD_SECONDS, self._max_lag / 4))
            await self._look()

    async def _look(self) -> None:
        try:
            problem, error = await self._measure(), None
        except Exception as failure:  # noqa: BLE001 - the lag is unknown, whatever the reason
            problem, error = "its lag cannot be measured", failure
        self._log_use(problem, error)

    async def _measure(self) -> str:
        """Measure the lag, and return why the replica is not used if it is not."""
        asked_at = time.monotonic()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            (primary,) = await self._primary_probe.fetch(_PRIMARY, {})
        self._samples.append((asked_at, primary.position))
        # Kept are those within the bound, and one before: when not even that is replayed, the lag is above the bound.
        while len(self._samples) > 1 and self._samples[1][0] < asked_at - self._max_lag:
            self._samples.popleft()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                (replica,) = await self._replica_probe.fetch(_REPLICA, {})
        except Exception:
            # When it comes back after a crash, it can be behind where it was.
            self._fresh_at = -math.inf
            # What waits for it goes to the primary instead of waiting on.
            for connection in list(self._connections):
                connection.terminate()
            raise
        self._fresh_at = -math.inf
        if not replica.is_replica:
            return "READ_DATABASE_URL leads to no replica"
        if any(getattr(replica, name) != getattr(primary, name) for name in _SAME):
            return "it replicates another database, or another timeline of this one"
        for sampled_at, position in reversed(self._samples):
            if position <= replica.position:
                self._fresh_at = sampled_at
                break
        return "it lags behind"

    def _log_use(self, problem: str, error: Exception | None) -> None:
        in_use = self._lag() <= self._max_lag
        if in_use == self._in_use:
            return
        self._in_use = in_use
        if in_use:
            log.info("replica in use")
        else:
            log.warning("replica out of use", problem=problem, **(where_raised(error) if error else {}))

    def _keep_connection(self, connection: Any, _record: object) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        self._connections.add(connection.driver_connection)
