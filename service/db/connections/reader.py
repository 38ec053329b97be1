"""Execute read-only statements on the primary or the replica, shielded from the cancellation of calls."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import Overloaded, StoreError
from service.application.ports.unit_of_work import TimeLeft
from service.config import DatabaseSettings
from service.db.connections.batching import BatchedLoader, Id
from service.db.connections.executor import StatementExecutor
from service.db.connections.expensive_reads import Expensive, ExpensiveReads
from service.db.connections.replica import Replica
from service.db.connections.statement import Statement
from service.observability.metrics.statements import Statements
from service.runtime.deadline import no_deadline
from service.runtime.loop_turns import LoopTurns
from service.runtime.shielded_tasks import ShieldedTasks


class StatementReader:
    """Executes read-only statements, each with its own snapshot; every method raises StoreError.

    The cancellation of a call does not reach a running statement (`service.runtime.shielded_tasks`). A statement that
    waits for a connection is never sent if the call has no time left, or its client has gone, when its turn comes.

    Args:
        engine: connects to the primary.
        replica: answers the reads of calls that prefer it.
        prefers_replica: returns whether the running call prefers the replica; asked before each read.
        time_left: returns how long the running call may still take; asked before each read.
        batched_reads: whether concurrent loads by id share a statement.
        hold_connection: as for `StatementExecutor`; the connection is held until `drain`.
        settings: the limits of expensive reads; without, they are read like any others.
        statements: counts statements and batches, for metrics; None counts none.
    """

    def __init__(  # noqa: PLR0913 - parts, and one switch for each addition
        self,
        engine: AsyncEngine,
        replica: Replica | None = None,
        *,
        prefers_replica: Callable[[], bool] = lambda: False,
        time_left: Callable[[], TimeLeft] = lambda: no_deadline,
        batched_reads: bool = True,
        hold_connection: bool = False,
        settings: DatabaseSettings | None = None,
        statements: Statements | None = None,
    ) -> None:
        self.executor = StatementExecutor(engine, hold_connection=hold_connection, statements=statements)
        self._statements = statements
        self.expensive_reads = ExpensiveReads(self.executor, settings) if settings else None
        self._replica = replica
        self._prefers_replica = prefers_replica
        self.time_left = time_left
        self._batched_reads = batched_reads
        self._large_page_turns = LoopTurns()
        self.shielded_tasks = ShieldedTasks(lambda error: isinstance(error, StoreError | Overloaded))

    async def all(
        self,
        statement: Statement | Select[Any],
        values: Mapping[str, object] | None = None,
        *,
        expensive: Expensive | None = None,
    ) -> Sequence[Row[Any]]:
        """Return all rows of a statement.

        Args:
            statement: the statement.
            values: the values of its parameters.
            expensive: which kind of reads that can take long it is. PostgreSQL cancels such a statement when the call
                is cancelled, or takes too long.
        """
        if expensive and self.expensive_reads:
            return await self._expensive(self.expensive_reads, expensive, statement, values or {})
        return await self.shielded_tasks.run(self._all(statement, values or {}, self.time_left()))

    async def first(
        self, statement: Statement | Select[Any], values: Mapping[str, object] | None = None
    ) -> Row[Any] | None:
        """Return the only row of a statement, or None."""
        rows = await self.all(statement, values)
        return rows[0] if rows else None

    def batched_loader(self, statement: Statement, name: str) -> Callable[[Id], Awaitable[Any]]:
        """Return a function that loads the row with an id, or None.

        With `batched_reads`, the ids of several calls share a statement.

        Args:
            statement: returns the rows with these ids.
            name: the statement's parameter for the ids.
        """
        if not self._batched_reads:
            return lambda row_id: self.first(statement, {name: [row_id]})
        executor, replica, prefers_replica = self.executor, self._replica, self._prefers_replica
        time_left = self.time_left
        sizes = self._statements.batches(statement.name) if self._statements is not None else None
        primary_loader = BatchedLoader(
            lambda ids, left: executor.fetch(statement, {name: ids}, time_left=left),
            self.shielded_tasks,
            executor.slots,
            sizes,
        )
        if replica is None:
            return lambda row_id: primary_loader.load(row_id, time_left())
        # Two loaders, so that a call that reads from the primary never gets a row of the replica.
        replica_loader = BatchedLoader(
            lambda ids, left: replica.rows(statement, {name: ids}, otherwise=executor, time_left=left),
            self.shielded_tasks,
            replica.slots,
            sizes,
        )

        def load(row_id: Id) -> Awaitable[Any]:
            return (replica_loader if prefers_replica() else primary_loader).load(row_id, time_left())

        return load

    async def drain(self, time_left: TimeLeft = no_deadline) -> None:
        """Wait until no statement runs and all connections are back in their pools.

        Cancels the statements that still run when no time is left.
        """
        await self.shielded_tasks.drain(time_left)
        self.executor.release_held()

    async def _expensive(
        self,
        reads: ExpensiveReads,
        kind: Expensive,
        statement: Statement | Select[Any],
        values: Mapping[str, object],
    ) -> Sequence[Row[Any]]:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        compiled = statement if isinstance(statement, Statement) else Statement(kind.name.lower(), statement)
        if self._replica and self._prefers_replica():
            reading = self._replica.expensive_rows(
                kind, compiled, values, otherwise=reads, time_left=self.time_left(), gone=gone
            )
        else:
            reading = reads.rows(kind, compiled, values, time_left=self.time_left(), gone=gone)
        try:
            return await self.shielded_tasks.run(reading)
        except asyncio.CancelledError:
            if not gone.done():
                gone.set_result(None)
            raise

    async def _all(
        self, statement: Statement | Select[Any], values: Mapping[str, object], time_left: TimeLeft
    ) -> Sequence[Row[Any]]:
        if self._replica and self._prefers_replica():
            return await self._replica.rows(statement, values, otherwise=self.executor, time_left=time_left)
        return await self.executor.rows(statement, values, time_left=time_left)
