"""Reads that can take long: they have a small share of the connections, a time limit, and end when nobody waits."""

import asyncio
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from service.application.ports.unit_of_work import TimeLeft
from service.config import DatabaseSettings
from service.db.connections.executor import StatementExecutor
from service.db.connections.slots import Slots
from service.db.connections.statement import Statement, Values


class Expensive(Enum):
    """The kinds of reads that can take long, each with a share of connections of its own."""

    SEARCH = auto()
    STATISTICS = auto()
    COUNT = auto()
    """Lists with their total size."""


class ExpensiveReads:
    """Runs statements that can take long on some of an executor's connections.

    Each kind has `expensive_read_connections` of them, and all kinds together have at most half, so that other calls
    always get a connection.

    Args:
        executor: runs the statements.
        settings: the limits.

    Attributes:
        shares: the connections that each kind may use.
    """

    def __init__(self, executor: StatementExecutor, settings: DatabaseSettings) -> None:
        self._executor = executor
        self._max_seconds = settings.expensive_read_timeout
        half, timeout = max(1, executor.slots.size // 2), executor.slots.timeout
        size = min(half, settings.expensive_read_connections)
        self.shares = {kind: Slots(size, timeout) for kind in Expensive}
        self._together = Slots(half, timeout)

    async def rows(
        self, kind: Expensive, statement: Statement, values: Values, *, time_left: TimeLeft, gone: asyncio.Future[None]
    ) -> Sequence[Any]:
        """Return all rows of a statement that only reads.

        Args:
            kind: whose share of connections it uses.
            statement: the statement.
            values: the values of its parameters.
            time_left: how long the caller may still take.
            gone: done as soon as nobody waits for the rows; a running statement is then cancelled.

        Raises:
            DeadlineExceeded: no time was left, or the statement took too long; it has ended.
            Overloaded, StoreError: as for `StatementExecutor.fetch`.
        """

        def seconds_left() -> float:
            return 0.0 if gone.done() else min(time_left(), self._max_seconds)

        share = self.shares[kind]
        await share.take(seconds_left)
        try:
            await self._together.take(seconds_left)
            try:
                return await self._executor.fetch(statement, values, time_left=seconds_left, gone=gone)
            finally:
                self._together.give_back()
        finally:
            share.give_back()
