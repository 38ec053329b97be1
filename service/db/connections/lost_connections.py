"""Notices connections that no longer reach PostgreSQL, closes them, and logs that.

A firewall that has forgotten a connection silently drops its packets, and a proxy that hangs acknowledges them without
passing them on. PostgreSQL then never answers, and no error ends the wait. Four things do:

- The kernel closes a connection whose packets stay unacknowledged (`close_when_unacknowledged`).
- A connection that has not answered shortly after the deadline of its statement is closed
  (`service.db.connections.executor`, `service.db.writes.transaction`).
- If a statement takes long, `LostConnections` asks PostgreSQL over a new connection whether it is running at all.
- asyncpg ends every statement after `command_timeout`.

When one connection of a pool is lost, the idle ones are closed too: what happened to it has probably happened to them,
and a call that finds this out by waiting is one call too many.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

# The kernel closes a connection that has been idle for 5 s when it does not acknowledge a probe, and any connection
# whose packets it has not acknowledged for 2 s. Firewalls forget connections that are idle for minutes, so the probes
# also keep these from being forgotten.
_SOCKET_OPTIONS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 2000}
# How often to look for statements that take long, and what counts as long.
_PERIOD_SECONDS = 0.5
_LONG_SECONDS = 1.0
# How long a closed connection waits for PostgreSQL to cancel its statement.
_CANCEL_SECONDS = 0.5
# At most one line per server and period is logged.
_LOG_PERIOD_SECONDS = 10.0
# Of these backends, return those that run a statement, are in a transaction, or have ended one in the last second.
_AT_WORK = """
SELECT pid FROM pg_stat_activity
WHERE pid = ANY($1) AND (state = 'idle' AND state_change < clock_timestamp() - interval '1 s') IS NOT TRUE
"""
# End those of these backends that are idle. By default, PostgreSQL notices only after hours that the client of a
# backend has gone; until then, the backend keeps its locks and counts towards max_connections.
_END = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = ANY($1) AND pid <> pg_backend_pid() AND usename = current_user AND application_name LIKE 'commerce%'
  AND state LIKE 'idle%' AND state_change < clock_timestamp() - interval '1 s'
"""

# The beginnings of the SQLSTATEs with which PostgreSQL ends a connection, and errors of broken ones.
_ENDED = ("08", "25P03", "25P04", "57P")
_BROKEN = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)

log = structlog.get_logger()
# When a line was logged, by the address of the server, and how many connections were lost since.
_logged: dict[str, tuple[float, int]] = {}


def close_when_unacknowledged(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    """Let the kernel close a connection when the other side does not acknowledge what is sent."""
    # asyncpg has no public access to the socket.
    found = connection._transport.get_extra_info("socket")  # noqa: SLF001 - as above
    if found is None or found.family == socket.AF_UNIX:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS.items():
        # Some systems lack some of these.
        if (option := getattr(socket, name, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)


@dataclass(slots=True)
class _Use:
    """A statement that a connection runs.

    Attributes:
        number: the number of statements that the connection has run, including this one.
        since: when the statement was first seen.
        ask_time: when to ask PostgreSQL about it; later and later, as long as PostgreSQL is at work.
    """

    number: int
    since: float
    ask_time: float


class LostConnections:
    """The lost connections of one pool.

    Args:
        engine: the owner of the pool.
        address: host and port of the server, for the log.
        connect: opens a connection outside the pool, to ask PostgreSQL about those of the pool. None if that would tell
            nothing, because PgBouncer is between.
        answer_seconds: how long asyncpg waits for the answer to a statement that has no limit of its own.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        address: str,
        connect: Callable[[], Awaitable[Any]] | None,
        *,
        answer_seconds: float,
    ) -> None:
        self.answer_seconds = answer_seconds
        self.address = address
        self._connect = connect
        self._entries: WeakSet[ConnectionPoolEntry] = WeakSet()
        # The backend of each connection, because asyncpg forgets it when the connection is closed.
        self._pids: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._rests: Callable[[Any], bool] | None = None
        self._uses: dict[Any, _Use] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        # The backends of connections that were closed as lost.
        self._to_end: set[int] = set()
        self._ending: asyncio.Task[None] | None = None
        event.listen(engine.sync_engine, "connect", self._on_connect)
        event.listen(engine.sync_engine, "invalidate", self._on_invalidate)
        event.listen(engine.sync_engine, "close", self._on_close)

    def look_for_dead(self, rests: Callable[[Any], bool]) -> None:
        """Look periodically for connections that wait for an answer which does not come.

        Only for a pool whose connections, while they are checked out, either run a statement or are in a transaction.

        Args:
            rests: returns whether a connection (asyncpg's) is checked out although it is idle.
        """
        self._rests = rests

    def close(self, connection: Any, cause: str) -> None:  # noqa: ANN401 - asyncpg has no types
        """Close a connection that is lost, and the idle ones of the pool, without waiting; log the cause.

        Args:
            connection: asyncpg's connection; nothing happens if it is closed already.
            cause: why it counts as lost, for an operator.
        """
        if not connection.is_closed():
            self._lose(connection, cause)

    def _lose(self, connection: Any, cause: str, *, has_ended: bool = False) -> None:  # noqa: ANN401 - as above
        idle = [other for other in self._open_connections(idle=True) if other is not connection]
        for closed in (connection, *idle):
            if self._connect and not has_ended:
                self._to_end.add(self._pids[closed])
            closed.terminate()
        if self._to_end and (self._ending is None or self._ending.done()):
            self._ending = asyncio.create_task(self._end_backends(), context=Context())
        now = time.monotonic()
        logged_at, unlogged = _logged.get(self.address, (-_LOG_PERIOD_SECONDS, 0))
        if now - logged_at < _LOG_PERIOD_SECONDS:
            _logged[self.address] = (logged_at, unlogged + 1)
            return
        _logged[self.address] = (now, 0)
        more = {"more_since_last_line": unlogged} if unlogged else {}
        log.warning("lost a connection to the database", address=self.address, cause=cause, **more)

    def _open_connections(self, *, idle: bool) -> Iterator[Any]:
        """Yield asyncpg's connections that are open, either those that are idle or those that are in use."""
        for entry in self._entries:
            connection: Any = entry.driver_connection
            if connection is not None and not connection.is_closed():
                rests = not entry.in_use or (self._rests is not None and self._rests(connection))
                if rests == idle:
                    yield connection

    def _on_connect(self, connection: Any, entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        self._entries.add(entry)
        self._pids[connection.driver_connection] = connection.driver_connection.get_server_pid()
        if self._connect and self._rests and not self._timer:
            self._look_later()

    def _on_invalidate(self, connection: Any, _entry: object, error: BaseException | None) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        if error is None:
            return
        causes = list(_causes(error))
        # Also what is closed already: this may be the first that is known of it.
        if sqlstate := next((found for cause in causes if (found := _reported(cause))), None):
            if sqlstate.startswith(_ENDED):
                self._lose(connection.driver_connection, f"PostgreSQL ended it (SQLSTATE {sqlstate})", has_ended=True)
        elif any(isinstance(cause, TimeoutError) for cause in causes):
            self._lose(connection.driver_connection, "it did not answer in time")
        elif any(isinstance(cause, _BROKEN) for cause in causes):
            self._lose(connection.driver_connection, "it broke")

    def _on_close(self, connection: Any, _entry: object) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        # SQLAlchemy would wait until PostgreSQL has closed the connection too: for lost connections until asyncpg's
        # limit, one after another. PostgreSQL is told, and has nothing to answer.
        closed = connection.driver_connection
        if closed._cancellations:  # noqa: SLF001 - asyncpg has no public access
            # asyncpg is asking PostgreSQL to cancel a statement, and would give that up.
            asyncio.get_running_loop().call_later(_CANCEL_SECONDS, closed.terminate)
        else:
            closed.terminate()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_SECONDS, self._look, context=Context())

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        uses = {}
        for connection in self._open_connections(idle=False):
            number, use = _number_of_statements(connection), self._uses.get(connection)
            uses[connection] = use if use and use.number == number else _Use(number, now, now + _LONG_SECONDS)
        self._uses = uses
        due = {connection: use for connection, use in uses.items() if use.ask_time <= now}
        if due and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._close_dead(due))
        # The first connection that is opened later begins again.
        if uses or any(self._open_connections(idle=True)):
            self._look_later()

    async def _close_dead(self, due: dict[Any, _Use]) -> None:
        """Close those of the connections that PostgreSQL does not work for."""
        at_work = await self._ask(_AT_WORK, [self._pids[connection] for connection in due])
        if at_work is None:
            return
        now = time.monotonic()
        for connection, use in due.items():
            if self._pids[connection] in at_work:
                use.ask_time = now + (now - use.since)
            elif connection in self._open_connections(idle=False) and _number_of_statements(connection) == use.number:
                self.close(connection, "PostgreSQL has not received what was sent, or its answer was lost")

    async def _end_backends(self) -> None:
        while self._to_end:
            # PostgreSQL may get to know by itself, and a backend that was used just now may still be at work.
            await asyncio.sleep(2 * _LONG_SECONDS)
            pids, self._to_end = self._to_end, set()
            await self._ask(_END, list(pids))

    async def _ask(self, query: str, pids: list[int]) -> set[int] | None:
        """Return the backends that a query about these returns; None if PostgreSQL cannot be asked, perhaps not yet."""
        if self._connect is None:
            return None
        try:
            connection = await self._connect()
        except (OSError, asyncpg.PostgresError):
            # The server cannot be reached at all, which the readiness probe reports.
            return None
        try:
            own = connection.get_server_pid()
            # A proxy that shares the server's connections among its clients reports other numbers than PostgreSQL.
            if own != await connection.fetchval("SELECT pg_backend_pid()", timeout=_LONG_SECONDS):
                self._connect = None
                return None
            return {row["pid"] for row in await connection.fetch(query, pids, timeout=_LONG_SECONDS)}
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        finally:
            connection.terminate()


def _number_of_statements(connection: Any) -> int:  # noqa: ANN401 - asyncpg has no types
    # asyncpg has no public access to this counter.
    number: int = connection._protocol.queries_count  # noqa: SLF001 - as above
    return number


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, up to the error of asyncpg or the system."""
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "orig", None)


def _reported(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error that PostgreSQL itself has reported."""
    if isinstance(error, asyncpg.PostgresError) and error.server_source_function:
        return str(error.sqlstate)
    return None
