"""Hot statements: written in SQLAlchemy Core, compiled once at start, run on the driver's own connection.

What SQLAlchemy does for a statement in each call (building it, its cache key, a cursor, its own rows, and the greenlet
around all that) costs two to three times what asyncpg takes to run it. Here, only its pool is left of that; the
connections, their settings and their limits are the same. (CPU for BatchGetUsers: 0.57 of that with SQLAlchemy's
execution, for ListOrders 0.68.)
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import asyncpg
from sqlalchemy import Row, Select, event
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection, QueuePool
from sqlalchemy.util import greenlet_spawn

from service.application.ports.errors import DatabaseUnavailable, Overloaded, StoreError
from service.db.connections.engine import for_single_statements
from service.db.connections.statement import Statement, Values
from service.db.errors import READ_ONLY, sqlstate_of, translate_error, translated_errors


def _is_rolled_back(error: BaseException) -> bool:
    """Return whether PostgreSQL has said, before the connection broke, that it ends it: it has rolled back then.

    Only its own words count, which name a place in its source. Those of a pooler in between say nothing of what has
    become of the statement.
    """
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and bool(cause.server_source_function)


class StatementExecutor:
    """Runs hot statements on the connections of an engine's pool, each in a transaction of its own; others too.

    Args:
        engine: whose pool, of which others may use connections too.
        hold_connection: whether to hold one connection between statements, until `release_held`, if the pool has more.
            To check a connection out and in again costs as much as to send the statement. (CPU for GetUser with 64 in
            flight: 0.93 of that without; time of a call that is alone: 0.93.)
    """

    def __init__(self, engine: AsyncEngine, *, hold_connection: bool = False) -> None:
        self._engine = for_single_statements(engine)
        self._pool = pool = engine.sync_engine.pool
        self._patience: float | None = pool.timeout() if isinstance(pool, QueuePool) else None
        # To wait here for one of the pool's connections costs less than to wait there.
        size = pool.size() if isinstance(pool, QueuePool) else 1
        self._connections = asyncio.Semaphore(size)
        self._keeps_one = hold_connection and size > 1
        self._kept: PoolProxiedConnection | None = None
        # How many others are taking a connection from the pool just now.
        self._borrowers = 0
        # How often the pool has lost a connection. Then it may have given up all, and what is kept has to go, too.
        self._losses = 0
        if self._keeps_one:
            event.listen(pool, "invalidate", self._count_loss)

    async def rows(self, statement: Statement | Select[Any], values: Values) -> Sequence[Row[Any]]:
        """Return all rows of a statement that only reads, hot or not; raises StoreError."""
        if isinstance(statement, Statement):
            return await self.fetch(statement, values)
        with translated_errors():
            connection = self._engine.connect()
            with self.lending():
                await connection.start()
            try:
                rows: Sequence[Row[Any]] = (await connection.execute(statement, values)).all()
                return rows
            finally:
                await asyncio.shield(connection.close())

    async def fetch(
        self, statement: Statement, values: Values, *, lost: type[StoreError] = DatabaseUnavailable
    ) -> list[Any]:
        """Return all rows of a statement; waits for a connection.

        A cancellation costs the connection, so whoever may be cancelled shields this.

        Raises:
            StoreError: `lost` where the connection broke after the statement was sent, and nothing was heard of it.
            AlreadyExists: a constraint was violated that stands for it.
            Overloaded: no connection was free in time.
        """
        if self._connections.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await self._connections.acquire()
            except TimeoutError as error:
                raise Overloaded from error
        else:
            await self._connections.acquire()
        try:
            return await self._fetch(statement, values, lost)
        finally:
            self._connections.release()

    def release_held(self) -> None:
        """Give the connection that is kept back to the pool."""
        kept, self._kept = self._kept, None
        if kept:
            kept.close()

    @contextmanager
    def lending(self) -> Iterator[None]:
        """Keep nothing while the block takes a connection from the pool, which may have no other."""
        self._borrowers += 1
        self.release_held()
        try:
            yield
        finally:
            self._borrowers -= 1

    def _count_loss(self, *_connection: object) -> None:
        self._losses += 1
        self.release_held()

    async def _fetch(self, statement: Statement, values: Values, lost: type[StoreError]) -> list[Any]:
        losses = self._losses
        try:
            pooled = await self._check_out()
        except Exception as error:
            if meaning := translate_error(error):
                raise meaning from error
            raise
        connection = cast("Any", pooled.driver_connection)
        try:
            return statement.rows(await connection.fetch(statement.text, *statement.arguments(values)))
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            # InterfaceError: the connection was closed, or this program is wrong. InternalClientError: PostgreSQL has
            # said while the connection was idle that it ends it, and not ended it yet.
            broken = connection.is_closed() or not isinstance(error, asyncpg.InterfaceError)
            pooled.invalidate()
            if not broken:
                raise
            raise (DatabaseUnavailable if _is_rolled_back(error) else lost) from error
        except asyncpg.PostgresError as error:
            # What PostgreSQL reports, it has rolled back.
            if sqlstate_of(error) == READ_ONLY:
                # It leads to a replica, and would for ever.
                pooled.invalidate()
            if meaning := translate_error(error):
                raise meaning from error
            raise
        except BaseException:
            # Nobody knows what the connection is in the middle of.
            pooled.invalidate()
            raise
        finally:
            if self._keeps_one and not (self._kept or self._borrowers) and self._losses == losses:
                self._kept = pooled
            else:
                pooled.close()

    async def _check_out(self) -> PoolProxiedConnection:
        pooled, self._kept = self._kept, None
        while True:
            try:
                # Without the detour through a greenlet where one is idle.
                pooled = pooled or self._pool.connect()
            except MissingGreenlet:
                # None is idle, so what ends meanwhile is for whoever waits, also here.
                with self.lending():
                    pooled = await greenlet_spawn(self._pool.connect)
            connection = cast("Any", pooled.driver_connection)
            if not connection.is_closed():
                return pooled
            # PostgreSQL ended it while it was idle.
            pooled.invalidate()
            pooled.close()
            pooled = None
