"""Transactions of one statement: the hot writes, with everything that belongs to them.

Whatever the reply needs is known before: identifiers and times are made by the application, order numbers come from
blocks. So one statement checks what the write depends on, claims the request id, writes the rows, the event and the
stored response, and is a transaction by itself. Either all of it happens or nothing: then no row comes back, and the
unit of work is done anew, step by step, which also finds out what was in the way. (CPU for CreateOrder: 0.17 of the
transaction with a statement for each step; for ConfirmOrder 0.29.)

Rows that somebody else holds are passed over, which counts as in the way, and so does a wait for another call with the
same request id or external reference: it is the other way of doing it that waits, within the call's limits.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import orjson

from service.application.ports.errors import OutcomeUnknown
from service.application.ports.unit_of_work import EncodedOrder, RequestKey
from service.db.connections.batching import Batcher
from service.db.connections.executor import StatementExecutor
from service.db.connections.statement import Statement
from service.db.writes.event_rows import event_row
from service.db.writes.fast_path.order_statements import (
    CHANGED,
    ITEM,
    ORDER,
    changing_many,
    changing_one,
    placing_many,
    placing_one,
)
from service.domain.events import Event
from service.domain.orders import Order, OrderItem
from service.runtime.shielded_tasks import ShieldedTasks

# Orders in one statement, if they take no more bytes together than a large one by itself.
_MAX_ORDERS = 32
_MAX_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class OrderWrite:
    """One order to write, with all that belongs to it.

    Attributes:
        old_version: 0 for a new order.
        message: the order as it is kept in its row.
    """

    order: Order | EncodedOrder
    old_version: int
    event: Event
    actor: str
    request: RequestKey | None
    response: bytes
    message: bytes

    @property
    def items(self) -> Sequence[OrderItem]:
        """What belongs to a new order."""
        return self.order.items if isinstance(self.order, Order) else ()


class GroupCommit:
    """Writes orders, each in a transaction of one statement, or with others that come at the same time.

    Orders that are written together share a statement and its commit, and nothing else: where it fails, whatever the
    reason, nothing of it was written, and each order is written by itself. (CPU with 64 in flight, of that with a
    statement each: CreateOrder 0.80 with up to 16 together, ConfirmOrder 0.75; with up to 32, both 0.92 of that.)

    Args:
        driver: runs the statements.
        detached: runs the work for several callers.
    """

    def __init__(self, executor: StatementExecutor, shielded_tasks: ShieldedTasks) -> None:
        self._executor = executor
        self._placing = self._coalesced(self._place, shielded_tasks)
        self._changing = self._coalesced(self._change, shielded_tasks)

    @staticmethod
    def _coalesced(
        write: Callable[[Sequence[OrderWrite]], Awaitable[Sequence[bool | Exception]]], shielded_tasks: ShieldedTasks
    ) -> Batcher[OrderWrite, bool | Exception]:
        # A unit of work that writes at once is that of a call, whose work nobody cancels.
        return Batcher(write, shielded_tasks, max_items=_MAX_ORDERS, callers_are_shielded=True)

    async def write(self, write: OrderWrite) -> bool:
        """Place an order if its user is ACTIVE, or bring one to another status if it is as it was at `old_version`.

        Returns whether that was done.

        Raises:
            OrderAlreadyExists: for a used external reference.
            StoreError: nothing was written, but with OutcomeUnknown.
        """
        done = await (self._changing if write.old_version else self._placing).submit(write)
        if isinstance(done, Exception):
            raise done
        return done

    async def _place(self, writes: Sequence[OrderWrite]) -> Sequence[bool | Exception]:
        return await self._write(placing_one, placing_many, _placing_values, writes)

    async def _change(self, writes: Sequence[OrderWrite]) -> Sequence[bool | Exception]:
        return await self._write(changing_one, changing_many, _changing_values, writes)

    async def _write(
        self,
        for_one: Callable[..., Statement],
        for_many: Callable[[], Statement],
        values: Callable[[Sequence[OrderWrite]], dict[str, object]],
        writes: Sequence[OrderWrite],
    ) -> Sequence[bool | Exception]:
        if len(writes) > 1 and sum(len(write.message) for write in writes) > _MAX_BYTES:
            first, second = writes[: len(writes) // 2], writes[len(writes) // 2 :]
            return [done for half in (first, second) for done in await self._write(for_one, for_many, values, half)]
        together = _apart(writes)
        chosen = list(together.values())
        statement = for_many() if len(chosen) > 1 else for_one(claims=chosen[0].request is not None)
        try:
            rows = await self._executor.fetch(statement, values(chosen), lost=OutcomeUnknown)
        except Exception as error:  # noqa: BLE001 - raised in their callers
            if len(writes) == 1 or isinstance(error, OutcomeUnknown):
                return [error] * len(writes)
            return [done for write in writes for done in await self._write(for_one, for_many, values, [write])]
        written = {row.id for row in rows}
        return [index in together and write.order.id in written for index, write in enumerate(writes)]


def _apart(writes: Sequence[OrderWrite]) -> dict[int, OrderWrite]:
    """Return, by their indexes, what one statement can write: of one order, or under one request id, only the first.

    The others find it in their way.
    """
    apart: dict[int, OrderWrite] = {}
    taken: set[object] = set()
    for index, write in enumerate(writes):
        keys: set[object] = {write.order.id}
        if write.request:
            keys.add((write.request.method, write.request.request_id))
        if taken.isdisjoint(keys):
            taken |= keys
            apart[index] = write
    return apart


def _placing_values(writes: Sequence[OrderWrite]) -> dict[str, object]:
    """Return the parameters for new orders."""
    items = [
        {"order_id": write.order.id} | {name: getattr(item, name) for name in ITEM}
        for write in writes
        for item in write.items
    ]
    return _given_values([_order_row(write, ORDER) for write in writes]) | {"items": _json(items)}


def _changing_values(writes: Sequence[OrderWrite]) -> dict[str, object]:
    """Return the parameters for orders that go to another status."""
    return _given_values([_order_row(write, CHANGED) | {"old_version": write.old_version} for write in writes])


def _order_row(write: OrderWrite, names: Sequence[str]) -> dict[str, object]:
    """Return these columns of an order, those of its event and, if there is a request id, of that."""
    row: dict[str, object] = {name: getattr(write.order, name) for name in names if name != "message"}
    row["message"] = write.message
    row |= {f"event_{name}": value for name, value in event_row(write.event, write.actor).items()}
    if request := write.request:
        row["request_caller"], row["request_method"] = request.caller, request.method
        row["request_request_id"], row["request_body_digest"] = request.request_id, request.body_digest
        row["request_response"] = write.response
    return row


def _given_values(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return the parameters of these rows: of several, JSON."""
    return {f"given_{name}": value for name, value in rows[0].items()} if len(rows) == 1 else {"given": _json(rows)}


def _json(rows: Sequence[dict[str, object]]) -> str:
    return orjson.dumps(rows, default=_text).decode()


def _text(value: object) -> str:
    # Decimals as text, which keeps them exact.
    return value.hex() if isinstance(value, bytes) else str(value)
