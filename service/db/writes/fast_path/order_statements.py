"""The statements of `service.db.writes.fast_path.group_commit`, each for one order or for several.

The statements for one order have a parameter for each value, except for the items, which are JSON. The statements for
several orders take their rows as JSON: that is quicker to encode than an array for each column, but PostgreSQL takes
longer for each order. `tests/sql/statements/` shows the SQL of each.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
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

from service.db.connections.statement import Statement
from service.db.tables import events, order_items, orders, request_ids, users
from service.db.writes.encoded_messages import MESSAGE_VERSION, MESSAGE_VERSION_SETTING
from service.domain.users import UserState

# The statement fails if it waits longer than this for a lock.
_LOCK_TIMEOUT = "50ms"

# The columns of a new order that are written; all others are null.
ORDER = (
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
ITEM = ("id", "product_id", "name", "quantity", "unit_price", "subtotal")
# The columns of an order that transitions change.
CHANGED = ("id", "status", "tracking_number", "cancel_reason", "version", "update_time", "message")
EVENT = (
    "id",
    "aggregate_type",
    "aggregate_id",
    "type",
    "actor",
    "create_time",
    "changes",
    "user_id",
    "status",
    "on_behalf_of",
)
REQUEST = ("caller", "method", "request_id", "body_digest", "response", "resource_id")
_ITEM_ROW = ("order_id", *ITEM)

Types = Mapping[str, TypeEngine[Any]]


def _types(table: Table, names: Sequence[str], prefix: str = "") -> Types:
    return {f"{prefix}{name}": table.c[name].type for name in names}


# The types of the parameters: those of the order, its event and its request id.
_EVENT_TYPES = _types(events, EVENT, "event_")
_REQUEST_TYPES = _types(request_ids, REQUEST, "request_")
_PLACED_TYPES: Types = {**_types(orders, ORDER), **_EVENT_TYPES, **_REQUEST_TYPES}
_CHANGED_TYPES: Types = {
    **_types(orders, CHANGED),
    "old_version": orders.c.version.type,
    **_EVENT_TYPES,
    **_REQUEST_TYPES,
}


# Statements for one order. Their parameters are the names above with the prefix given_.


@cache
def placing_one(*, claims: bool) -> Statement:
    """Return the statement that places an order and, with `claims`, claims its request id; `items` is JSON."""
    given = _parameters(_PLACED_TYPES)
    # FOR SHARE: the user cannot be deactivated or deleted before this commits.
    customer = (
        select(users.c.id)
        .select_from(_limited().join(users, true()))
        .where(users.c.id == given["user_id"], users.c.state == UserState.ACTIVE)
        .with_for_update(read=True, skip_locked=True, of=users)
        .cte("customer")
    )
    condition = _claim(given, customer) if claims else customer
    row = select(*(given[name] for name in ORDER)).select_from(condition)
    placed = insert(orders).from_select(list(ORDER), row).returning(orders.c.id).cte("placed")
    item = _rows("items", _types(order_items, _ITEM_ROW)).subquery("item")
    rows = select(item).select_from(item.join(placed, true()))
    items = insert(order_items).from_select(list(_ITEM_ROW), rows).cte("items")
    return Statement(
        "place_order_with_request_id" if claims else "place_order",
        select(placed.c.id).add_cte(items, _event(given, placed)),
    )


@cache
def changing_one(*, claims: bool) -> Statement:
    """Return the statement that changes the status of an order and, with `claims`, claims its request id."""
    given = _parameters(_CHANGED_TYPES)
    allowed = (
        select(orders.c.id)
        .select_from(_limited().join(orders, true()))
        .where(orders.c.id == given["id"], *_is_unchanged(given["old_version"]))
        .with_for_update(key_share=True, skip_locked=True, of=orders)
        .cte("allowed")
    )
    conditions = (select(_claim(given, allowed)).exists(),) if claims else ()
    changed = (
        update(orders)
        .values({name: given[name] for name in CHANGED if name != "id"})
        .where(orders.c.id == allowed.c.id, *conditions)
        .returning(orders.c.id)
        .cte("changed")
    )
    return Statement(
        "change_order_with_request_id" if claims else "change_order",
        select(changed.c.id).add_cte(_event(given, changed)),
    )


def _parameters(types: Types) -> dict[str, BindParameter[Any]]:
    return {name: bindparam(f"given_{name}", type_=kind) for name, kind in types.items()}


def _claim(given: Mapping[str, BindParameter[Any]], condition: CTE) -> CTE:
    """Return the CTE that claims the request id if `condition` has a row; it returns a row if the claim succeeds."""
    row = select(*(given[f"request_{name}"] for name in REQUEST)).select_from(condition)
    claim = insert(request_ids).from_select(list(REQUEST), row).on_conflict_do_nothing()
    return claim.returning(request_ids.c.request_id).cte("claimed")


def _event(given: Mapping[str, BindParameter[Any]], written: CTE) -> CTE:
    row = select(*(given[f"event_{name}"] for name in EVENT)).select_from(written)
    return insert(events).from_select(list(EVENT), row).cte("event")


# Statements for several orders. The parameter `given` has their rows as JSON, bytes in hexadecimal.


@cache
def placing_many() -> Statement:
    """Return the statement that places orders; the parameter `items` has the items of all."""
    given = _rows("given", _PLACED_TYPES).cte("given")
    # FOR SHARE: the users cannot be deactivated or deleted before this commits.
    customers = (
        select(users.c.id)
        .select_from(_limited().join(users, true()))
        .where(users.c.id.in_(select(given.c.user_id)), users.c.state == UserState.ACTIVE)
        .with_for_update(read=True, skip_locked=True, of=users)
        .cte("customers")
    )
    allowed = select(given).where(given.c.user_id.in_(select(customers.c.id))).cte("allowed")
    wanted = select(*(allowed.c[name] for name in ORDER)).where(_claims_request_id(allowed))
    placed = insert(orders).from_select(list(ORDER), wanted).returning(orders.c.id).cte("placed")
    item = _rows("items", _types(order_items, _ITEM_ROW)).subquery("item")
    item_rows = select(item).where(item.c.order_id.in_(select(placed.c.id)))
    items = insert(order_items).from_select(list(_ITEM_ROW), item_rows).cte("items")
    return Statement("place_orders", select(placed.c.id).add_cte(items, _events_of(placed, allowed)))


@cache
def changing_many() -> Statement:
    """Return the statement that changes the status of orders."""
    given = _rows("given", _CHANGED_TYPES).cte("given")
    allowed = (
        select(given)
        .select_from(_limited().join(given, true()).join(orders, orders.c.id == given.c.id))
        .where(*_is_unchanged(given.c.old_version))
        .with_for_update(key_share=True, skip_locked=True, of=orders)
        .cte("allowed")
    )
    changed = (
        update(orders)
        .values({name: allowed.c[name] for name in CHANGED if name != "id"})
        .where(orders.c.id == allowed.c.id, _claims_request_id(allowed))
        .returning(orders.c.id)
        .cte("changed")
    )
    return Statement("change_orders", select(changed.c.id).add_cte(_events_of(changed, allowed)))


def _rows(parameter: str, types: Types) -> Select[Any]:
    """Return the rows of a JSON parameter."""
    # The columns of a record have no collation, and bytes arrive as text.
    plain = {name: Text() if isinstance(kind, Text | LargeBinary) else kind for name, kind in types.items()}
    function = func.json_to_recordset(bindparam(parameter, type_=Text).cast(JSON))
    row = function.table_valued(*(column(name, kind) for name, kind in plain.items()), name=parameter)
    row = row.render_derived(with_types=True)
    return select(
        *(
            func.decode(row.c[name], "hex").label(name) if isinstance(kind, LargeBinary) else row.c[name]
            for name, kind in types.items()
        )
    )


def _claims_request_id(allowed: CTE) -> ColumnElement[bool]:
    """Return the condition that a row has no request id, or has claimed it; adds the CTE that claims."""
    claims = select(*(allowed.c[f"request_{name}"] for name in REQUEST)).where(
        allowed.c.request_request_id.is_not(None)
    )
    claimed = (
        insert(request_ids)
        # All statements claim in this order, so that no two wait for each other.
        .from_select(list(REQUEST), claims.order_by(allowed.c.request_request_id))
        .on_conflict_do_nothing()
        .returning(request_ids.c.method, request_ids.c.request_id)
        .cte("claimed")
    )
    is_claimed = select(claimed.c.request_id).where(
        claimed.c.method == allowed.c.request_method, claimed.c.request_id == allowed.c.request_request_id
    )
    return allowed.c.request_request_id.is_(None) | is_claimed.exists()


def _events_of(written: CTE, allowed: CTE) -> CTE:
    """Insert the events of the orders that were written."""
    rows = select(*(allowed.c[f"event_{name}"] for name in EVENT)).where(allowed.c.id.in_(select(written.c.id)))
    return insert(events).from_select(list(EVENT), rows).cte("event")


# Parts of both kinds of statements.


def _is_unchanged(old_version: ColumnElement[int]) -> tuple[ColumnElement[bool], ...]:
    # Credit did not pay for the order when it was read, and only a new version can change that. If the encoded message
    # is gone, another program has changed the order without a new version.
    return (orders.c.version == old_version, orders.c.message.is_not(None))


def _limited() -> CTE:
    """Set lock_timeout, and the message version that tells the triggers invalidate_… who writes encoded messages."""
    limit = func.set_config("lock_timeout", _LOCK_TIMEOUT, true())
    version = func.set_config(MESSAGE_VERSION_SETTING, MESSAGE_VERSION, true())
    return select(limit.label("limit"), version.label("message_version")).cte("limited").prefix_with("MATERIALIZED")
