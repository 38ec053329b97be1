"""Snapshots: everything that an export reads is as it was at one moment."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.application.ports.errors import Overloaded
from service.config import ServerSettings
from service.db.connections.engine import create_export_engine
from service.db.connections.statement import Statement
from service.db.errors import translated_errors
from service.db.reads.orders import OrderQueries
from service.db.reads.reader import Reader
from service.db.reads.users import UserQueries

# Between the end of a stalled export here and what PostgreSQL would do about it.
_MARGIN_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Implements `service.application.ports.queries.Snapshot`."""

    users: UserQueries
    orders: OrderQueries


class Snapshots:
    """Implements `service.application.ports.queries.Snapshots`.

    Each has a connection of its own and keeps it, with a transaction open, while its reader takes its time: on the pool
    a few slow readers would leave no connection to the calls.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._engine = create_export_engine(settings, idle_seconds=settings.export_stall_timeout + _MARGIN_SECONDS)
        self._limit = settings.max_exports
        self._open = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Snapshot]:
        """Open a snapshot."""
        if self._open >= self._limit:
            raise Overloaded
        self._open += 1
        try:
            async with AsyncExitStack() as stack:
                with translated_errors():
                    connection = await stack.enter_async_context(self._engine.connect())
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                reader = _OneConnection(connection)
                yield Snapshot(UserQueries(reader), OrderQueries(reader))
        finally:
            self._open -= 1

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


class _OneConnection(Reader):
    """Runs all statements in the transaction of one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.engine)
        self._connection = connection

    async def _all(self, statement: Statement | Select[Any], values: Mapping[str, object]) -> Sequence[Row[Any]]:
        with translated_errors():
            core = statement.core if isinstance(statement, Statement) else statement
            rows: Sequence[Row[Any]] = (await self._connection.execute(core, values)).all()
            return rows
