"""Writes orders with one statement each, or with one statement for those that arrive at the same time.

Everything in the response is known before the statement is sent: the application makes identifiers and times, and
order numbers come from blocks. So one statement checks what the write depends on, claims the request id, and writes the
rows, the event and the stored response. It is a transaction by itself: either all of it happens, or nothing, and then
it returns no row. (CreateOrder takes 83 % less CPU than as a transaction with a statement for each step,
ConfirmOrder 71 % less.)

The statement skips rows that another transaction has locked, and fails after waiting 50 ms for another call with the
same request id or external reference. In both cases it writes nothing, and the transactional unit of work does the
waiting, within the limits of the call.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from service.application.ports.errors import DatabaseUnavailable, DeadlineExceeded, OutcomeUnknown, Overloaded
from service.application.ports.unit_of_work import Actor, EncodedOrder, RequestKey, TimeLeft
from service.db.connections.batching import Batcher
from service.db.connections.executor import StatementExecutor
from service.db.connections.statement import Statement, Values
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

# Maximum number of orders in one statement, and maximum size of their messages together.
_MAX_ORDERS = 32
_MAX_BYTES = 32 * 1024
# Failures that do not come from one of the orders, so that each of them would fail in the same way.
_SHARED = (Overloaded, DatabaseUnavailable, DeadlineExceeded, OutcomeUnknown)


@dataclass(frozen=True, slots=True)
class OrderWrite:
    """One order to write, with everything that is written with it.

    Attributes:
        order: the order as it will be.
        old_version: the version that the order must still have; 0 for a new order.
        event: what happened to it.
        actor: who causes the event.
        request: the request id to claim, if the call has one.
        response: the response to store under the request id.
        message: the encoded message of the order.
        time_left: how long the call may still take; without time the order is not written.
    """

    order: Order | EncodedOrder
    old_version: int
    event: Event
    actor: Actor
    request: RequestKey | None
    response: bytes
    message: bytes | None
    time_left: TimeLeft

    @property
    def items(self) -> Sequence[OrderItem]:
        """The items to insert: those of a new order."""
        return self.order.items if isinstance(self.order, Order) else ()


@dataclass(frozen=True, slots=True)
class _Operation:
    """What statements do with their orders: place them, or change their status.

    Attributes:
        one: returns the statement for one order; `claims` says whether it claims a request id.
        many: returns the statement for several orders.
        values: returns the parameters of either.
    """

    one: Callable[..., Statement]
    many: Callable[[], Statement]
    values: Callable[[Sequence[OrderWrite]], dict[str, object]]


class GroupCommit:
    """Writes the orders of many calls, several with one statement and one commit.

    The orders of a statement share nothing but its commit: if it fails because of one order, nothing of it was written,
    and each of its orders is written by a statement of its own. A failure that all of them share, such as overload or a
    lost database, is the answer to all of them: tried one by one, each order would wait again.

    (With 64 calls in flight, groups of up to 16 orders take 20 % less CPU for CreateOrder and 25 % less for
    ConfirmOrder; groups of up to 32 take another 8 % less.)

    Args:
        executor: runs the statements.
        shielded_tasks: runs the work that several callers wait for.
    """

    def __init__(self, executor: StatementExecutor, shielded_tasks: ShieldedTasks) -> None:
        self._executor = executor
        self._placing = self._batcher(_PLACE, shielded_tasks, "place_orders")
        self._changing = self._batcher(_CHANGE, shielded_tasks, "change_orders")

    def _batcher(
        self, operation: _Operation, shielded_tasks: ShieldedTasks, name: str
    ) -> Batcher[OrderWrite, bool | Exception]:
        # Each write has its own time.
        def write_all(writes: Sequence[OrderWrite], _time_left: TimeLeft) -> Awaitable[Sequence[bool | Exception]]:
            return self._write_all(operation, writes)

        # The TransactionInterceptor runs each write in a shielded task, so no caller is cancelled.
        slots, statements = self._executor.slots, self._executor.statements
        sizes = statements.batches(name) if statements is not None else None
        return Batcher(write_all, shielded_tasks, slots, max_items=_MAX_ORDERS, callers_are_shielded=True, sizes=sizes)

    async def write(self, write: OrderWrite) -> bool:
        """Place an order if its user is ACTIVE, or change its status if it still has `old_version`.

        Returns whether the order was written.

        Raises:
            OrderAlreadyExists: the user has another order with this external reference; nothing was written.
            OutcomeUnknown: the connection was lost after the statement was sent, so the write may have happened.
            DeadlineExceeded: the call had no time left when there was a connection; nothing was written.
            StoreError: any other; nothing was written.
        """
        result = await (self._changing if write.old_version else self._placing).submit(write, write.time_left)
        if isinstance(result, Exception):
            raise result
        return result

    async def _write_all(self, operation: _Operation, writes: Sequence[OrderWrite]) -> Sequence[bool | Exception]:
        return await self._write_parts(operation, _chunks(writes))

    async def _write_parts(
        self, operation: _Operation, parts: Iterable[Sequence[OrderWrite]]
    ) -> Sequence[bool | Exception]:
        """Write each part with a statement; after a failure that all parts share, no other part is tried."""
        results: list[bool | Exception] = []
        shared: Exception | None = None
        for part in parts:
            if shared:
                results += [shared] * len(part)
                continue
            written = await self._write_part(operation, part)
            results += written
            # The last one, because a part whose orders are taken apart may fail like this in the middle.
            if isinstance(last := written[-1], Overloaded | DatabaseUnavailable):
                shared = last
            elif isinstance(last, OutcomeUnknown):
                # The connection was lost too, but the other parts have not been sent.
                shared = DatabaseUnavailable()
        return results

    async def _write_part(self, operation: _Operation, part: Sequence[OrderWrite]) -> Sequence[bool | Exception]:
        try:
            return await self._write_together(operation, part)
        except Exception as error:  # noqa: BLE001 - raised in each caller
            # With an unknown outcome the orders may have been written, so they are not tried again either.
            if len(part) == 1 or isinstance(error, _SHARED):
                return [error] * len(part)
        return await self._write_parts(operation, ([write] for write in part))

    async def _write_together(self, operation: _Operation, writes: Sequence[OrderWrite]) -> Sequence[bool | Exception]:
        results: list[bool | Exception] = [False] * len(writes)
        chosen: dict[int, OrderWrite] = {}

        def make() -> tuple[Statement, Values]:
            # Only when there is a connection, because calls may run out of time while they wait for it.
            nonlocal chosen
            in_time = {index: write for index, write in enumerate(writes) if write.time_left() > 0}
            if not in_time:
                raise DeadlineExceeded
            for index in range(len(writes)):
                if index not in in_time:
                    results[index] = DeadlineExceeded()
            chosen = _independent(in_time)
            rows = list(chosen.values())
            statement = operation.many() if len(rows) > 1 else operation.one(claims=rows[0].request is not None)
            return statement, operation.values(rows)

        def longest() -> float:
            return max(write.time_left() for write in writes)

        rows = await self._executor.fetch_made(make, lost=OutcomeUnknown, time_left=longest)
        written = {row.id for row in rows}
        for index, write in chosen.items():
            results[index] = write.order.id in written
        return results


def _chunks(writes: Sequence[OrderWrite]) -> Iterator[Sequence[OrderWrite]]:
    """Yield the writes in parts that have at most `_MAX_BYTES` of messages, or one order."""
    chunk: list[OrderWrite] = []
    size = 0
    for write in writes:
        length = len(write.message or b"")
        if chunk and size + length > _MAX_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(write)
        size += length
    yield chunk


def _independent(writes: Mapping[int, OrderWrite]) -> dict[int, OrderWrite]:
    """Return, by index, the writes that can share a statement: the first for each order and for each request id.

    The statement returns no row for the others, so their calls go to the transactional unit of work.
    """
    independent: dict[int, OrderWrite] = {}
    taken: set[object] = set()
    for index, write in writes.items():
        keys: set[object] = {write.order.id}
        if write.request:
            keys.add((write.request.method, write.request.request_id))
        if taken.isdisjoint(keys):
            taken |= keys
            independent[index] = write
    return independent


def _place_values(writes: Sequence[OrderWrite]) -> dict[str, object]:
    """Return the parameters for new orders."""
    items = [
        {"order_id": write.order.id} | {name: getattr(item, name) for name in ITEM}
        for write in writes
        for item in write.items
    ]
    return _given_values([_order_row(write, ORDER) for write in writes]) | {"items": _json(items)}


def _change_values(writes: Sequence[OrderWrite]) -> dict[str, object]:
    """Return the parameters for orders whose status changes."""
    return _given_values([_order_row(write, CHANGED) | {"old_version": write.old_version} for write in writes])


_PLACE = _Operation(placing_one, placing_many, _place_values)
_CHANGE = _Operation(changing_one, changing_many, _change_values)


def _order_row(write: OrderWrite, names: Sequence[str]) -> dict[str, object]:
    """Return these columns of an order, the columns of its event and, if there is one, of its request id."""
    row: dict[str, object] = {name: getattr(write.order, name) for name in names if name != "message"}
    row["message"] = write.message
    row |= {f"event_{name}": value for name, value in event_row(write.event, write.actor).items()}
    if request := write.request:
        row["request_caller"], row["request_method"] = request.caller, request.method
        row["request_request_id"], row["request_body_digest"] = request.request_id, request.body_digest
        row["request_response"], row["request_resource_id"] = write.response, write.order.id
    return row


def _given_values(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return the parameters for these rows: a parameter for each column of one row, JSON for several rows."""
    return {f"given_{name}": value for name, value in rows[0].items()} if len(rows) == 1 else {"given": _json(rows)}


def _json(rows: Sequence[dict[str, object]]) -> str:
    return orjson.dumps(rows, default=_text).decode()


def _text(value: object) -> str:
    # A decimal as text stays exact.
    return value.hex() if isinstance(value, bytes) else str(value)
