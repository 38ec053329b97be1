"""A streaming replica for reads, used while its data is known to be no older than a bound.

The replica cannot be asked how old its data is: on an idle primary the last transaction that the replica has replayed
is old, although nothing is missing. So, a few times per second, this module asks the primary for the position up to
which its log (WAL) is written, and the replica for the position up to which it has replayed the log. The replica's data
contains everything that was committed before the newest sample whose position it has replayed, so the lag is the age of
that sample. The lag grows by itself while one of the servers does not answer, or while replay stands still.

(With `synchronous_commit` off, PostgreSQL shows transactions that are not in its log yet: the data may then be older by
up to three `wal_writer_delay`s.)
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import structlog
from sqlalchemy import ColumnElement, Row, Select, event, literal_column, select

from service.application.ports.errors import DatabaseUnavailable, DeadlineExceeded, Overloaded
from service.application.ports.unit_of_work import TimeLeft
from service.config import DatabaseSettings, ReplicaSettings, SettingsError
from service.db.connections.engine import async_url, create_engine, lost_connections
from service.db.connections.executor import StatementExecutor
from service.db.connections.expensive_reads import Expensive, ExpensiveReads
from service.db.connections.measured import MeasuredEngine
from service.db.connections.statement import Statement
from service.db.connections.warm_up import warm_up
from service.observability.logs import where_raised
from service.observability.metrics.statements import Statements
from service.runtime.deadline import no_deadline

# Seconds between two measurements, and the maximum seconds for the answer of one server.
_PERIOD_SECONDS = 0.25
_ANSWER_SECONDS = 2.0

# The columns that identify a database: a cluster and its copies share one system identifier, and a cluster has several
# databases. A promoted copy begins a new timeline. The primary's log shows its timeline immediately; the timeline that
# a replica reports can be as old as its last restart point, so after a failover the two differ for some minutes.
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


class LogSamples:
    """Samples of the primary's position in its log, from the last `max_age` seconds.

    The last sample before that is stored too. If the replica has not replayed even the position of that sample, the lag
    is longer than `max_age`.
    """

    def __init__(self, max_age: float) -> None:
        self._max_age = max_age
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, time: float, position: float) -> None:
        """Add a sample, and drop those that are too old.

        Args:
            time: in seconds; not before the time of the last sample, and not after the primary read its position.
            position: in bytes.
        """
        self._samples.append((time, position))
        while len(self._samples) > 1 and self._samples[1][0] < time - self._max_age:
            self._samples.popleft()

    def fresh_time(self, replayed: float) -> float:
        """Return the newest sample time whose earlier commits are all replayed at a position, or minus infinity."""
        return next((time for time, position in reversed(self._samples) if position <= replayed), -math.inf)


def identity_problem(primary: Any, replica: Any) -> str | None:  # noqa: ANN401 - rows
    """Return why a server is not a replica of the primary, or None if it is one.

    Args:
        primary: the row of `_PRIMARY`.
        replica: the row of `_REPLICA`.
    """
    if not replica.is_replica:
        return "READ_DATABASE_URL does not point to a replica"
    if any(getattr(replica, name) != getattr(primary, name) for name in _SAME):
        return "it replicates another database, or another timeline of this one"
    return None


def replica_database(settings: ReplicaSettings) -> DatabaseSettings:
    """Return the settings for connections to the replica: those of the primary, with the replica's URL.

    Raises:
        SettingsError: READ_DATABASE_URL is missing or wrong.
    """
    if settings.read_database_url is None:
        raise SettingsError("READ_DATABASE_URL is not set")
    # Checks the URL here, so that the error names READ_DATABASE_URL.
    async_url(settings.read_database_url.get_secret_value(), "READ_DATABASE_URL")
    return settings.model_copy(update={"database_url": settings.read_database_url})


class Replica:
    """The replica at READ_DATABASE_URL: `start`, then `rows`, then `close`.

    Args:
        settings: where the primary and the replica are, and how far the replica may lag behind.
        statements: counts the statements of the replica, for metrics; None counts none.

    Attributes:
        slots: those for connections to the replica.
        measured: counts the connections to the replica; None without `statements`.
        reads: how many reads that preferred the replica each server has answered.
    """

    def __init__(self, settings: ReplicaSettings, statements: Statements | None = None) -> None:
        database = replica_database(settings)
        self._max_lag = settings.max_replica_lag
        self._warm_connections = min(settings.db_pool_min_size, settings.db_pool_size)
        self._engine = create_engine(database)
        self.measured = None if statements is None else MeasuredEngine(self._engine, statements)
        self.reads: Counter[str] = Counter()
        self._executor = StatementExecutor(self._engine, statements=statements)
        self.slots = self._executor.slots
        self._expensive_reads = ExpensiveReads(self._executor, settings)
        # The probes have their own pools, so that a busy pool does not look like a lost server.
        self._probe_engines = [create_engine(settings, pool_size=1), create_engine(database, pool_size=1)]
        self._primary_probe, self._replica_probe = map(StatementExecutor, self._probe_engines)
        self._samples = LogSamples(settings.max_replica_lag)
        # Everything that was committed before this time is in the replica's data.
        self._fresh_time = -math.inf
        # The state that was logged last.
        self._in_use: bool | None = None
        self._task: asyncio.Task[None] | None = None
        self._connections: WeakSet[Any] = WeakSet()
        event.listen(self._engine.sync_engine, "connect", self._remember_connection)

    async def start(self) -> None:
        """Measure the lag now, and periodically from now on. A problem with the replica is only logged.

        If it is in use, as many of its connections are opened as of the primary's; those that cannot be are not missed.
        """
        await self._update()
        if self._is_fresh():
            await warm_up(self._engine, self._warm_connections)
        self._task = asyncio.create_task(self._update_periodically())

    @property
    def address(self) -> str:
        """Host and port of the replica."""
        return lost_connections(self._engine).address

    async def problem(self) -> str | None:
        """Return why the replica cannot be used; waits up to the maximum lag until it has caught up.

        Raises the error of the server that cannot be asked.
        """
        give_up = time.monotonic() + self._max_lag
        while True:
            problem = await self._measure()
            if self._is_fresh():
                return None
            if time.monotonic() > give_up:
                return problem
            await asyncio.sleep(_PERIOD_SECONDS)

    async def rows(
        self,
        statement: Statement | Select[Any],
        values: Mapping[str, object],
        *,
        otherwise: StatementExecutor,
        time_left: TimeLeft = no_deadline,
    ) -> Sequence[Row[Any]]:
        """Return all rows of a statement, from the replica if it is in use and answers, else from the primary.

        Args:
            statement: a read-only statement.
            values: the values of its parameters.
            otherwise: the primary's executor.
            time_left: how long the call may still take, as for `StatementExecutor.fetch`.

        Raises:
            DeadlineExceeded, Overloaded: the replica is in use and overloaded.
            StoreError: the primary failed.
        """
        return await self._read_or_else(
            lambda: self._executor.rows(statement, values, time_left=time_left),
            lambda: otherwise.rows(statement, values, time_left=time_left),
        )

    async def expensive_rows(
        self,
        kind: Expensive,
        statement: Statement,
        values: Mapping[str, object],
        *,
        otherwise: ExpensiveReads,
        time_left: TimeLeft,
        gone: asyncio.Future[None],
    ) -> Sequence[Row[Any]]:
        """Return all rows of a statement that can take long, as `rows` and `ExpensiveReads.rows` do."""
        return await self._read_or_else(
            lambda: self._expensive_reads.rows(kind, statement, values, time_left=time_left, gone=gone),
            lambda: otherwise.rows(kind, statement, values, time_left=time_left, gone=gone),
        )

    async def _read_or_else(
        self, read: Callable[[], Awaitable[Sequence[Row[Any]]]], otherwise: Callable[[], Awaitable[Sequence[Row[Any]]]]
    ) -> Sequence[Row[Any]]:
        if self._is_fresh():
            try:
                rows = await read()
            except Exception as error:
                if isinstance(error, DatabaseUnavailable):
                    self._fresh_time = -math.inf
                    self._log_change("the connection was lost", error)
                elif isinstance(error, DeadlineExceeded | Overloaded):
                    # A load that is too much for a working replica is too much for the primary as well.
                    if self._is_fresh():
                        raise
                else:
                    # For example a conflict with the replay of the log, or a table that the replica does not have yet.
                    log.info("replica failed; reading from the primary", **where_raised(error))
            else:
                self.reads["replica"] += 1
                return rows
        self.reads["primary"] += 1
        return await otherwise()

    async def close(self) -> None:
        """Stop measuring, and close the connections."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for engine in (self._engine, *self._probe_engines):
            await engine.dispose()

    @property
    def in_use(self) -> bool:
        """Whether reads may go to the replica."""
        return self._is_fresh()

    @property
    def lag(self) -> float:
        """How many seconds ago the newest known position was sampled that the replica has replayed; else infinity."""
        return time.monotonic() - self._fresh_time

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._fresh_time <= self._max_lag

    async def _update_periodically(self) -> None:
        while True:
            # Often enough that the time between two samples does not use up the bound.
            await asyncio.sleep(min(_PERIOD_SECONDS, self._max_lag / 4))
            await self._update()

    async def _update(self) -> None:
        try:
            problem, error = await self._measure(), None
        except Exception as failure:  # noqa: BLE001 - with any error the lag is unknown
            problem, error = "its lag cannot be measured", failure
        self._log_change(problem, error)

    async def _measure(self) -> str:
        """Measure the lag, and return the reason to log if the replica is out of use."""
        asked_at = time.monotonic()
        primary = await _ask(self._primary_probe, _PRIMARY)
        self._samples.add(asked_at, primary.position)
        try:
            replica = await _ask(self._replica_probe, _REPLICA)
        except Exception:
            # After a crash, the replica can come back with older data than before.
            self._fresh_time = -math.inf
            self._terminate_connections()
            raise
        problem = identity_problem(primary, replica)
        self._fresh_time = -math.inf if problem else self._samples.fresh_time(replica.position)
        return problem or "it lags behind"

    def _terminate_connections(self) -> None:
        """Terminate the connections to the replica, so that calls that wait for it read from the primary instead."""
        for connection in list(self._connections):
            connection.terminate()

    def _log_change(self, problem: str, error: Exception | None) -> None:
        in_use = self._is_fresh()
        if in_use == self._in_use:
            return
        self._in_use = in_use
        if in_use:
            log.info("replica in use")
        else:
            log.warning("replica out of use", problem=problem, **(where_raised(error) if error else {}))

    def _remember_connection(self, connection: Any, _record: object) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        self._connections.add(connection.driver_connection)


async def _ask(probe: StatementExecutor, statement: Statement) -> Any:  # noqa: ANN401 - a row
    async with asyncio.timeout(_ANSWER_SECONDS):
        (row,) = await probe.fetch(statement, {})
    return row
