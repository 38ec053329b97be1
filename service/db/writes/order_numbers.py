"""Order numbers, taken from the database's sequence in blocks."""

import math
from typing import TYPE_CHECKING

from sqlalchemy import select

from service.application.ports.errors import DeadlineExceeded
from service.application.ports.unit_of_work import TimeLeft
from service.db.connections.reader import StatementReader
from service.db.connections.statement import Statement
from service.db.tables import ORDER_NUMBER_BLOCK, order_number_sequence

if TYPE_CHECKING:
    from asyncio import Task

_NEXT_BLOCK = Statement("next_order_numbers", select(order_number_sequence.next_value().label("start")))


class OrderNumbers:
    """Order numbers for one process, taken from the sequence of the database in blocks.

    So most orders get their number without a statement. The numbers that are left of a block when the process ends are
    never used.
    """

    def __init__(self, reader: StatementReader) -> None:
        self._reader = reader
        self._block = iter(range(0))
        # The statement that gets the next block; all that need a number wait for the same one.
        self._asking: Task[None] | None = None

    async def next(self) -> str:
        """Return a number that no other caller gets; raises StoreError, and DeadlineExceeded after the call's time."""
        while (number := next(self._block, None)) is None:
            time_left = self._reader.time_left()
            if self._asking is None:
                self._asking = self._reader.shielded_tasks.start(self._ask(time_left))
            seconds = time_left()
            try:
                await self._reader.shielded_tasks.result(
                    self._asking,
                    timeout_seconds=None if seconds == math.inf else max(0.0, seconds),
                    timeout_error=DeadlineExceeded,
                )
            except DeadlineExceeded:
                # Unless it was that of the call that asked for the block.
                if time_left() <= 0:
                    raise
        return f"ORD-{number:08d}"

    async def _ask(self, time_left: TimeLeft) -> None:
        try:
            # Outside any transaction: a sequence does not roll back.
            ((start,),) = await self._reader.executor.fetch(_NEXT_BLOCK, {}, time_left=time_left)
            self._block = iter(range(start, start + ORDER_NUMBER_BLOCK))
        finally:
            self._asking = None
