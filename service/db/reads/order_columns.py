"""The columns of orders on the read side: each order with its items and the names of its tags."""

from collections.abc import Callable
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Dialect,
    FromClause,
    Select,
    Text,
    TypeDecorator,
    cast,
    func,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from service.db.reads.columns import (
    in_microseconds,
    in_ten_thousandths,
    message_size,
    ten_thousandths,
    unless_encoded,
)
from service.db.tables import order_items, order_tags, orders, tags

# More than what an order's message needs beside its texts and items, which take less than twice their JSON.
_ORDER_BYTES = 320


class _Items(TypeDecorator[list[list[Any]]]):
    """A JSON array of items, each an array: id, product_id, name, quantity, unit_price and subtotal; null as None.

    Amounts are in ten-thousandths, because the parser reads JSON numbers with decimals as floats.
    """

    impl = Text
    cache_ok = True

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[str | None], list[list[Any]] | None]:
        """Return the function that parses the items."""
        return lambda value: orjson.loads(value) if value else None


class _Metadata(TypeDecorator[dict[str, str]]):
    """JSON as text, which orjson parses faster than asyncpg parses `jsonb`."""

    impl = Text
    cache_ok = True

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[str | None], dict[str, str] | None]:
        """Return the function that parses the metadata; it returns None for an order without metadata."""
        return lambda value: orjson.loads(value) if value and value != "{}" else None


def _select_orders() -> Select[Any]:
    """Return the statement that reads orders as rows (`service.application.ports.queries.Row`).

    `items` and `tag_names` are single values, so that an order is one row.
    """
    exact = ("id", "product_id", "name", "quantity")
    amounts = (ten_thousandths(order_items.c[name]) for name in ("unit_price", "subtotal"))
    item = func.json_build_array(*(order_items.c[name] for name in exact), *amounts)
    items = select(func.json_agg(aggregate_order_by(item, order_items.c.id))).where(
        order_items.c.order_id == orders.c.id
    )
    names = (
        select(func.array_agg(aggregate_order_by(tags.c.name, tags.c.name)))
        .select_from(order_tags.join(tags))
        .where(order_tags.c.order_id == orders.c.id)
    )
    plain = ("order_number", "user_id", "status", "currency", "external_ref", "tracking_number", "cancel_reason")
    values: dict[str, ColumnElement[Any]] = {
        **{name: orders.c[name] for name in (*plain, "credit_state", "version")},
        **{name: in_microseconds(orders.c[name]) for name in ("update_time", "credit_expire_time")},
        "total_amount": in_ten_thousandths(orders.c.total_amount),
        "metadata": type_coerce(cast(orders.c.metadata, Text), _Metadata),
        "items": type_coerce(cast(items.scalar_subquery(), Text), _Items),
        "tag_names": names.scalar_subquery(),
    }
    return select(
        orders.c.id,
        in_microseconds(orders.c.create_time),
        orders.c.message,
        *(unless_encoded(orders.c.message, value, name) for name, value in values.items()),
    )


ORDERS = _select_orders()


def order_size(row: FromClause) -> ColumnElement[int]:
    """Return the size of the message of an order, of which a row has the columns of ORDERS."""
    texts = ("external_ref", "tracking_number", "cancel_reason", "metadata", "items", "items")
    return message_size(row, _ORDER_BYTES, *(row.c[name] for name in texts), func.array_to_string(row.c.tag_names, ","))
