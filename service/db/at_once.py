"""Transactions of one statement: the hot writes, with everything that belongs to them.

Whatever the reply needs is known before: identifiers and times are made by the application, order numbers come from
blocks. So one statement checks what the write depends on, claims the request id, writes the rows, the event and the
stored response, and is a transaction by itself. Either all of it happens or nothing: then no row comes back, and the
unit of work is done anew, step by step, which also finds out what was in the way. (CPU for CreateOrder: 0.3 of the
transaction with a statement for each step; for ConfirmOrder 0.4.)

Rows that somebody else holds are passed over, which counts as in the way: it is the other way of doing it that waits,
within the call's limits. What can make a statement wait here is only another call with the same request id, or for the
same external reference.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
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

from service.application.ports import RequestKey
from service.db.driver import Statement
from service.db.tables import events, order_items, orders, request_ids, users
from service.domain.events import Event
from service.domain.orders import Order
from service.domain.users import UserState

# What of a new order is written; the rest is the same for all, or null.
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
)
_ITEM = ("id", "product_id", "name", "quantity", "unit_price", "subtotal")
# What of an order its verbs change.
_CHANGED = ("status", "tracking_number", "cancel_reason", "version", "update_time")
_EVENT = ("id", "aggregate_type", "aggregate_id", "type", "actor", "create_time", "changes", "user_id", "status")
_REQUEST = ("caller", "method", "request_id", "body_digest", "response")


def placing(
    order: Order, event: Event, actor: str, request: RequestKey | None, response: bytes, seconds: float
) -> tuple[Statement, dict[str, object]]:
    """Return the statement that places an order if its user is ACTIVE, and its parameters.

    It returns a row if it did. It raises for a used external reference, and Contention after so many seconds of
    waiting.
    """
    values = _common(event, actor, request, response, seconds)
    values |= {f"order_{name}": getattr(order, name) for name in _ORDER}
    # As JSON, which is quicker to write than an array for each column, in numbers' exact text.
    values["items"] = orjson.dumps(
        [{name: _json_value(getattr(item, name)) for name in _ITEM} for item in order.items]
    ).decode()
    return _placing(with_request=request is not None), values


def changing(
    order: Order,
    old_version: int,
    event: Event,
    actor: str,
    request: RequestKey | None,
    response: bytes,
    seconds: float,
) -> tuple[Statement, dict[str, object]]:
    """Return the statement that brings an order to another status if nothing has changed it, and its parameters.

    It returns a row if it did. It raises Contention after so many seconds of waiting.
    """
    values = _common(event, actor, request, response, seconds)
    values |= {f"order_{name}": getattr(order, name) for name in _CHANGED}
    values |= {"order_id": order.id, "old_version": old_version}
    return _changing(with_request=request is not None), values


def _json_value(value: object) -> object:
    return value if isinstance(value, str | int) else str(value)


def _common(event: Event, actor: str, request: RequestKey | None, response: bytes, seconds: float) -> dict[str, object]:
    values: dict[str, object] = {
        # Zero would mean no limit.
        "wait_ms": str(max(1, int(seconds * 1000))),
        **{f"event_{name}": value for name, value in event_row(event, actor).items()},
    }
    if request:
        values |= {f"request_{name}": getattr(request, name) for name in _REQUEST[:-1]}
        values["request_response"] = response
    return values


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


@cache
def _placing(*, with_request: bool) -> Statement:
    limited = _limited()
    # FOR SHARE: the user cannot be deactivated or deleted before this commits.
    customer = (
        select(users.c.id)
        .select_from(limited.join(users, true()))
        .where(users.c.id == bindparam("order_user_id"), users.c.state == UserState.ACTIVE)
        .with_for_update(read=True, skip_locked=True, of=users)
        .cte("customer")
    )
    allowed = _claimed(customer) if with_request else customer
    placed = _inserted(orders, _ORDER, "order", allowed).returning(orders.c.id).cte("placed")
    given = (
        func.json_to_recordset(bindparam("items", type_=Text).cast(JSON))
        .table_valued(*(column(name, order_items.c[name].type) for name in _ITEM), name="given")
        .render_derived(with_types=True)
    )
    item = select(placed.c.id, *(given.c[name] for name in _ITEM)).select_from(placed)
    items = insert(order_items).from_select(["order_id", *_ITEM], item).cte("items")
    return Statement(_reported(placed).add_cte(items))


@cache
def _changing(*, with_request: bool) -> Statement:
    limited = _limited()
    unchanged = (
        select(orders.c.id)
        .select_from(limited.join(orders, true()))
        .where(
            orders.c.id == bindparam("order_id"),
            orders.c.version == bindparam("old_version"),
            # With credit, there is more to do.
            orders.c.credit_state.is_(None),
        )
        .with_for_update(key_share=True, skip_locked=True, of=orders)
        .cte("unchanged")
    )
    allowed = _claimed(unchanged) if with_request else unchanged
    changed = (
        update(orders)
        .values({name: _parameter(orders.c[name], "order") for name in _CHANGED})
        .where(orders.c.id == bindparam("order_id"), select(allowed).exists())
        .returning(orders.c.id)
        .cte("changed")
    )
    return Statement(_reported(changed))


def _limited() -> CTE:
    """Limit how long the statement itself, which is a transaction, may wait for a lock."""
    setting = func.set_config("lock_timeout", bindparam("wait_ms", type_=Text), true())
    return select(setting.label("limit")).cte("limited").prefix_with("MATERIALIZED")


def _claimed(source: CTE) -> CTE:
    """Claim the request id, with its response, for each row of the source: one or none."""
    claim = _inserted(request_ids, _REQUEST, "request", source).on_conflict_do_nothing()
    claimed: CTE = claim.returning(request_ids.c.request_id).cte("claimed")
    return claimed


def _reported(done: CTE) -> Select[Any]:
    """Return what was done, and write its event."""
    event = _inserted(events, _EVENT, "event", done).cte("event")
    return select(done).add_cte(event)


def _inserted(table: Table, names: Sequence[str], prefix: str, source: CTE) -> Any:  # noqa: ANN401 - PostgreSQL's Insert
    """Insert a row of parameters for each row of the source."""
    values = [_parameter(table.c[name], prefix) for name in names]
    return insert(table).from_select(list(names), select(*values).select_from(source))


def _parameter(column: Column[Any], prefix: str) -> ColumnElement[Any]:
    return bindparam(f"{prefix}_{column.name}", type_=column.type)
