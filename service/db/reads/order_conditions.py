"""The named conditions of lists of orders and of order statistics.

The names alone determine the text of a statement, and the values are parameters. So a statement is compiled once for
each tuple of names.
"""

from collections.abc import Mapping

from sqlalchemy import ARRAY, ColumnElement, Text, TextClause, any_, bindparam, exists, select

from service.application.ports.queries import OrderFilter
from service.db.tables import OPEN, order_tags, orders, tags
from service.db.types import EnumText
from service.domain.orders import OPEN_STATUSES, OrderStatus

Condition = ColumnElement[bool] | TextClause
# The condition that an order has at least one of several tags. For each tag that an order must have, there is another
# condition: `tag_0`, `tag_1` and so on.
ANY_TAG = "tags_any"
_REQUIRED_TAG_PREFIX = "tag_"

ORDER_CONDITIONS: Mapping[str, Condition] = {
    "user_id": orders.c.user_id == bindparam("user_id"),
    # Separate from `statuses`, because for a single status PostgreSQL can read an index in the order of the list.
    "status": orders.c.status == bindparam("status"),
    "statuses": orders.c.status == any_(bindparam("statuses", type_=ARRAY(EnumText(OrderStatus)))),
    "open": OPEN,
    "created_from": orders.c.create_time >= bindparam("created_from"),
    "created_before": orders.c.create_time < bindparam("created_before"),
}
IDS_OF_ANY_TAG = select(tags.c.id).where(tags.c.name == any_(bindparam(ANY_TAG, type_=ARRAY(Text))))


def parse_filter(where: OrderFilter) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return the names of a filter's conditions, and the values of their parameters."""
    values: dict[str, object] = {
        "user_id": where.user_id,
        "created_from": where.created_from,
        "created_before": where.created_before,
        ANY_TAG: list(where.tags_any) or None,
        **{f"{_REQUIRED_TAG_PREFIX}{index}": name for index, name in enumerate(where.tags_all)},
    }
    values = {name: value for name, value in values.items() if value is not None}
    names = list(values)
    if where.statuses is not None:
        names.append("status" if len(where.statuses) == 1 else "statuses")
        values |= {"status": where.statuses[0], "statuses": where.statuses}
        if set(where.statuses) <= set(OPEN_STATUSES):
            # The statuses imply this condition, but PostgreSQL uses the partial index of open orders only if the
            # statement contains it.
            names.append("open")
    return tuple(names), values


def is_required_tag(name: str) -> bool:
    """Return whether a condition requires one particular tag."""
    return name.startswith(_REQUIRED_TAG_PREFIX)


def is_about_tags(name: str) -> bool:
    """Return whether a condition is about tags."""
    return name == ANY_TAG or is_required_tag(name)


def on_orders(name: str) -> Condition:
    """Return a condition on the rows of `orders`."""
    if is_about_tags(name):
        return exists().where(order_tags.c.order_id == orders.c.id, on_order_tags(name))
    return ORDER_CONDITIONS[name]


def on_order_tags(name: str) -> ColumnElement[bool]:
    """Return a condition about tags, on the rows of `order_tags`."""
    if name == ANY_TAG:
        return order_tags.c.tag_id.in_(IDS_OF_ANY_TAG)
    return order_tags.c.tag_id == select(tags.c.id).where(tags.c.name == bindparam(name)).scalar_subquery()
