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
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    CTE,
    ColumnElement,
    LargeBinary,
    Select,
    Table,
    Text,
    bindparam,
    column,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, insert
from sqlalchemy.types import TypeEngine

from service.application.ports import KeptOrder, OutcomeUnknown, RequestKey
from service.db.coalesce import Coalesced
from service.db.driver import Driver, Statement
from service.db.kept import FORM, KEEPS_MESSAGES
from service.db.tables import events, order_items, orders, request_ids, users
from service.detached import Detached
from service.domain.events import Event
from service.domain.orders import Order, OrderItem
from service.domain.users import UserState

# Orders in one statement, if they take no more bytes together than a large one by itself.
_MAX_ORDERS = 32
_MAX_BYTES = 32 * 1024
# A statement that waits longer for a lock gives up.
_LOCK_TIMEOUT = "50ms"

# What of a new order is written; the rest is null.
_ORDER = (
    "id",
    "order_number",
    "user_id",
    "status",
    "currency",
    "total_amount",
    "external_ref",
    "metadata",
    "version",
    "create_time",
    "update_time",
    "message",
)
_ITEM = ("id", "product_id", "name", "quantity", "unit_price", "subtotal")
# What of an order its verbs change.
_CHANGED = ("id", "status", "tracking_number", "cancel_reason", "version", "update_time", "message")
_EVENT = ("id", "aggregate_type", "aggregate_id", "type", "actor", "create_time", "changes", "user_id", "status")
_REQUEST = ("caller", "method", "request_id", "body_digest", "response")


@dataclass(frozen=True, slots=True)
class Write:
    """One order to write, with all that belongs to it.

    Attributes:
        old_version: 0 for a new order.
        message: the order as it is kept in its row.
    """

    order: Order | KeptOrder
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


class OrderWrites:
    """Writes orders, each in a transaction of one statement, or with others that come at the same time.

    Orders that are written together share a statement and its commit, and nothing else: where it fails, whatever the
    reason, nothing of it was written, and each order is written by itself. (CPU with 64 in flight, of that with a
    statement each: CreateOrder 0.80 with up to 16 together, ConfirmOrder 0.75; with up to 32, both 0.92 of that.)

    Args:
        driver: runs the statements.
        detached: runs the work for several callers.
    """

    def __init__(self, driver: Driver, detached: Detached) -> None:
        self._driver = driver
        self._placing = self._coalesced(self._place, detached)
        self._changing = self._coalesced(self._change, detached)

    @staticmethod
    def _coalesced(
        write: Callable[[Sequence[Write]], Awaitable[Sequence[bool | Exception]]], detached: Detached
    ) -> Coalesced[Write, bool | Exception]:
        # A unit of work that writes at once is that of a call, whose work nobody cancels.
        return Coalesced(write, detached, max_items=_MAX_ORDERS, callers_are_detached=True)

    async def write(self, write: Write) -> bool:
        """Place an order if its user is ACTIVE, or bring one to another status if it is as it was at `old_version`.

        Returns whether that was done.

        Raises:
            OrderAlreadyExists: for a used external reference.
            StoreError: nothing was written, but with OutcomeUnknown.
        """
        done = await (self._changing if write.old_version else self._placing).do(write)
        if isinstance(done, Exception):
            raise done
        return done

    async def _place(self, writes: Sequence[Write]) -> Sequence[bool | Exception]:
        return await self._write(_placing, _placing_values, writes)

    async def _change(self, writes: Sequence[Write]) -> Sequence[bool | Exception]:
        return await self._write(_changing, _changing_values, writes)

    async def _write(
        self,
        statement: Callable[..., Statement],
        values: Callable[[Sequence[Write]], dict[str, object]],
        writes: Sequence[Write],
    ) -> Sequence[bool | Exception]:
        if len(writes) > 1 and sum(len(write.message) for write in writes) > _MAX_BYTES:
            first, second = writes[: len(writes) // 2], writes[len(writes) // 2 :]
            return [*await self._write(statement, values, first), *await self._write(statement, values, second)]
        together = _apart(writes)
        chosen = list(together.values())
        form = statement(is_one=len(chosen) == 1, claims=any(write.request for write in chosen))
        try:
            rows = await self._driver.fetch(form, values(chosen), lost=OutcomeUnknown)
        except Exception as error:  # noqa: BLE001 - raised in their callers
            if len(writes) == 1 or isinstance(error, OutcomeUnknown):
                return [error] * len(writes)
            return [done for write in writes for done in await self._write(statement, values, [write])]
        written = {row.id for row in rows}
        return [index in together and write.order.id in written for index, write in enumerate(writes)]


def _apart(writes: Sequence[Write]) -> dict[int, Write]:
    """Return, by their indexes, what one statement can write: of one order, or under one request id, only the first.

    The others find it in their way.
    """
    apart: dict[int, Write] = {}
    taken: set[object] = set()
    for index, write in enumerate(writes):
        keys: set[object] = {write.order.id}
        if write.request:
            keys.add((write.request.method, write.request.request_id))
        if taken.isdisjoint(keys):
            taken |= keys
            apart[index] = write
    return apart


def event_row(event: Event, actor: str) -> dict[str, object]:
    """Return the columns of an event."""
    return {
        "id": event.id,
        "aggregate_type": event.aggregate_type,
        "aggregate_id": event.aggregate_id,
        "type": event.type,
        "actor": actor,
        "create_time": event.create_time,
        "changes": [
            {"field": change.field, "old_value": change.old_value, "new_value": change.new_value}
            for change in event.changes
        ],
        "user_id": event.user_id,
        "status": event.status,
    }


def _placing_values(writes: Sequence[Write]) -> dict[str, object]:
    """Return the parameters of `_placing`."""
    items = [
        {"order_id": write.order.id} | {name: getattr(item, name) for name in _ITEM}
        for write in writes
        for item in write.items
    ]
    return _given_values([_order_row(write, _ORDER) for write in writes]) | {"items": _json(items)}


def _changing_values(writes: Sequence[Write]) -> dict[str, object]:
    """Return the parameters of `_changing`."""
    return _given_values([_order_row(write, _CHANGED) | {"old_version": write.old_version} for write in writes])


def _order_row(write: Write, names: Sequence[str]) -> dict[str, object]:
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
    """Return the parameters of `_given`: of several, JSON, which is quicker to write than arrays of columns."""
    return {f"given_{name}": value for name, value in rows[0].items()} if len(rows) == 1 else {"given": _json(rows)}


def _json(rows: Sequence[dict[str, object]]) -> str:
    return orjson.dumps(rows, default=_text).decode()


def _text(value: object) -> str:
    # Decimals as text, which keeps them exact.
    return value.hex() if isinstance(value, bytes) else str(value)


def _rows(parameter: str, columns: dict[str, TypeEngine[Any]]) -> Select[Any]:
    """Return the rows of a parameter of JSON."""
    # A record's columns take no collation, and of bytes it has the text.
    plain = {name: Text() if isinstance(kind, Text | LargeBinary) else kind for name, kind in columns.items()}
    function = func.json_to_recordset(bindparam(parameter, type_=Text).cast(JSON))
    row = function.table_valued(*(column(name, kind) for name, kind in plain.items()), name=parameter)
    row = row.render_derived(with_types=True)
    return select(
        *(
            func.decode(row.c[name], "hex").label(name) if isinstance(kind, LargeBinary) else row.c[name]
            for name, kind in columns.items()
        )
    )


def _types(table: Table, names: Sequence[str], prefix: str = "") -> dict[str, TypeEngine[Any]]:
    return {f"{prefix}{name}": table.c[name].type for name in names}


@cache
def _placing(*, is_one: bool, claims: bool) -> Statement:
    given = _given(_types(orders, _ORDER), is_one=is_one, claims=claims)
    # FOR SHARE: the users cannot be deactivated or deleted before this commits.
    customers = (
        select(users.c.id)
        .select_from(_limited().join(users, true()))
        .where(users.c.id.in_(select(given.c.user_id)), users.c.state == UserState.ACTIVE)
        .with_for_update(read=True, skip_locked=True, of=users)
        .cte("customers")
    )
    allowed = select(given).where(given.c.user_id.in_(select(customers.c.id))).cte("allowed")
    wanted = select(*(allowed.c[name] for name in _ORDER)).where(*_are_claimed(allowed, claims=claims))
    placed = insert(orders).from_select(list(_ORDER), wanted).returning(orders.c.id).cte("placed")
    item = _rows("items", _types(order_items, ("order_id", *_ITEM))).subquery("item")
    item_rows = select(item).where(item.c.order_id.in_(select(placed.c.id)))
    items = insert(order_items).from_select(["order_id", *_ITEM], item_rows).cte("items")
    return Statement(select(placed.c.id).add_cte(items, _event_of(placed, allowed)))


@cache
def _changing(*, is_one: bool, claims: bool) -> Statement:
    kinds = _types(orders, _CHANGED) | {"old_version": orders.c.version.type}
    given = _given(kinds, is_one=is_one, claims=claims)
    # With credit, there is more to do. An order that is kept no longer was changed by somebody who did not count that.
    is_as_it_was = (
        orders.c.version == given.c.old_version,
        orders.c.credit_state.is_(None),
        orders.c.message.is_not(None),
    )
    allowed = (
        select(given)
        .select_from(_limited().join(given, true()).join(orders, orders.c.id == given.c.id))
        .where(*is_as_it_was)
        .with_for_update(key_share=True, skip_locked=True, of=orders)
        .cte("allowed")
    )
    changed = (
        update(orders)
        .values({name: allowed.c[name] for name in _CHANGED if name != "id"})
        .where(orders.c.id == allowed.c.id, *_are_claimed(allowed, claims=claims))
        .returning(orders.c.id)
        .cte("changed")
    )
    return Statement(select(changed.c.id).add_cte(_event_of(changed, allowed)))


def _given(kinds: dict[str, TypeEngine[Any]], *, is_one: bool, claims: bool) -> CTE:
    """Return the rows to write: of each order, these columns, those of its event and, with `claims`, its request id's.

    One has a parameter for each column, which takes PostgreSQL 0.9 of the time that it takes to read it from JSON.
    """
    kinds = kinds | _types(events, _EVENT, "event_")
    if claims:
        kinds |= _types(request_ids, _REQUEST, "request_")
    if not is_one:
        return _rows("given", kinds).cte("given")
    return select(*(bindparam(f"given_{name}", type_=kind).label(name) for name, kind in kinds.items())).cte("given")


def _are_claimed(allowed: CTE, *, claims: bool) -> Sequence[ColumnElement[bool]]:
    """Claim the request ids of these rows, and return the condition that one has none or got it."""
    if not claims:
        return ()
    wanted = select(*(allowed.c[f"request_{name}"] for name in _REQUEST)).where(
        allowed.c.request_request_id.is_not(None)
    )
    claimed = (
        insert(request_ids)
        # In one order, so that no two statements wait for each other.
        .from_select(list(_REQUEST), wanted.order_by(allowed.c.request_request_id))
        .on_conflict_do_nothing()
        .returning(request_ids.c.method, request_ids.c.request_id)
        .cte("claimed")
    )
    is_claimed = select(claimed.c.request_id).where(
        claimed.c.method == allowed.c.request_method, claimed.c.request_id == allowed.c.request_request_id
    )
    return (allowed.c.request_request_id.is_(None) | is_claimed.exists(),)


def _event_of(written: CTE, allowed: CTE) -> CTE:
    """Write the events of the orders that were written."""
    rows = select(*(allowed.c[f"event_{name}"] for name in _EVENT)).where(allowed.c.id.in_(select(written.c.id)))
    return insert(events).from_select(list(_EVENT), rows).cte("event")


def _limited() -> CTE:
    """Limit how long the statement itself, which is a transaction, may wait for a lock.

    And say that it keeps the messages of what it writes.
    """
    limit = func.set_config("lock_timeout", _LOCK_TIMEOUT, true())
    keeps = func.set_config(KEEPS_MESSAGES, FORM, true())
    return select(limit.label("limit"), keeps.label("keeps")).cte("limited").prefix_with("MATERIALIZED")
