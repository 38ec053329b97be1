"""Snapshots: all reads of an export see the data as of one moment."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.application.ports.errors import Overloaded
from service.application.ports.unit_of_work import TimeLeft
from service.config import ExportSettings
from service.db.connections.engine import create_export_engine
from service.db.connections.expensive_reads import Expensive
from service.db.connections.statement import Statement
from service.db.errors import translated_errors
from service.db.reads.orders import OrderQueries
from service.db.reads.reader import Reader
from service.db.reads.users import UserQueries

# PostgreSQL ends the transaction of a stalled export this many seconds after the time limit of the server itself.
_MARGIN_SECONDS = 15
# How long an export waits for another one to end, and how many may wait.
_WAIT_SECONDS = 1.0
_MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Implements `service.application.ports.queries.Snapshot`."""

    users: UserQueries
    orders: OrderQueries


class Snapshots:
    """Implements `service.application.ports.queries.Snapshots`.

    Each snapshot has its own connection, with an open transaction, until its client has read everything. These
    connections are not in the pool, because a few slow clients would use up the pool.

    Args:
        settings: how to reach the database, how many snapshots can be open, and when an export counts as stalled.
    """

    def __init__(self, settings: ExportSettings) -> None:
        self._engine = create_export_engine(settings, idle_seconds=settings.export_stall_timeout + _MARGIN_SECONDS)
        self._free = asyncio.Semaphore(settings.max_exports)
        self._waiting = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Snapshot]:
        """Open a snapshot; raises Overloaded if too many are open for too long, and StoreError."""
        await self._wait()
        try:
            async with AsyncExitStack() as stack:
                with translated_errors():
                    connection = await stack.enter_async_context(self._engine.connect())
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                reader = _OneConnection(connection)
                yield Snapshot(UserQueries(reader), OrderQueries(reader))
        finally:
            self._free.release()

    async def _wait(self) -> None:
        """Wait until a snapshot may be opened, for a short time, so that callers who are refused cannot call often."""
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("exports")
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded("exports") from error
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


class _OneConnection(Reader):
    """Executes all statements in the transaction of one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.engine)
        self._connection = connection

    async def all(
        self,
        statement: Statement | Select[Any],
        values: Mapping[str, object] | None = None,
        *,
        expensive: Expensive | None = None,  # noqa: ARG002 - an export has a connection of its own
    ) -> Sequence[Row[Any]]:
        """Return all rows; the cancellation of the call ends the statement, and the connection with it.

        A statement that went on would still use the connection while the snapshot closes it.
        """
        return await self._all(statement, values or {}, self.time_left())

    async def _all(
        self, statement: Statement | Select[Any], values: Mapping[str, object], _time_left: TimeLeft
    ) -> Sequence[Row[Any]]:
        with translated_errors():
            core = statement.core if isinstance(statement, Statement) else statement
            rows: Sequence[Row[Any]] = (await self._connection.execute(core, values)).all()
            return rows
