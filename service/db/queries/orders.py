"""The read side of orders; what each method answers is written at `service.application.ports.OrderQueries`."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Dialect,
    Row,
    Select,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    func,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.dialects.postgresql import aggregate_order_by

from service.application.ports import OrderFilter, Page, PageOfRows
from service.db.queries.events import event_columns
from service.db.queries.reader import Reader
from service.db.tables import events, order_items, orders
from service.domain.orders import OPEN_STATUSES


class ItemRow(NamedTuple):
    """An item of an order, with the attributes of `service.domain.orders.OrderItem`."""

    id: str
    product_id: str
    name: str
    quantity: int
    unit_price: Decimal
    subtotal: Decimal


class _Items(TypeDecorator[list[ItemRow]]):
    """A JSON array of items, each an array in the order of ItemRow. Its numbers are read exactly, as decimals."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, _dialect: Dialect) -> list[ItemRow]:
        """Return the items."""
        return [ItemRow._make(item) for item in json.loads(value or "[]", parse_float=Decimal)]


def _select_orders() -> Select[Any]:
    """Return a statement for whole orders: their columns, and each one's `items` as one JSON value."""
    item = func.json_build_array(*(order_items.c[name] for name in ItemRow._fields))
    items = select(func.json_agg(aggregate_order_by(item, order_items.c.id))).where(
        order_items.c.order_id == orders.c.id
    )
    # As text: the driver would read JSON numbers as floats.
    return select(orders, type_coerce(cast(items.scalar_subquery(), Text), _Items).label("items"))


_ORDERS = _select_orders()
_BY_IDS = _ORDERS.where(orders.c.id == any_(bindparam("ids", type_=ARRAY(PG_UUID(as_uuid=True)))))
_BY_NUMBER = _ORDERS.where(orders.c.order_number == bindparam("order_number"))
# In the words of the partial index ix_orders_open: bound values would not tell the planner that it applies.
_OPEN = text("orders.status IN ('PENDING', 'CONFIRMED', 'PROCESSING')")


class OrderQueries:
    """Implements `service.application.ports.OrderQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def by_ids(self, order_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
        """Return the orders with these ids, in any order."""
        return await self._reader.all(_BY_IDS, {"ids": order_ids})

    async def by_number(self, order_number: str) -> Row[Any] | None:
        """Return the order with this number."""
        return await self._reader.first(_BY_NUMBER, {"order_number": order_number})

    async def page(self, where: OrderFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of orders."""
        statement = _ORDERS
        if where.user_id is not None:
            statement = statement.where(orders.c.user_id == where.user_id)
        if where.statuses is not None:
            statement = statement.where(orders.c.status.in_(where.statuses))
            if set(where.statuses) <= set(OPEN_STATUSES):
                statement = statement.where(_OPEN)
        if where.created_from is not None:
            statement = statement.where(orders.c.create_time >= where.created_from)
        if where.created_before is not None:
            statement = statement.where(orders.c.create_time < where.created_before)
        keys = (orders.c.create_time, orders.c.id)
        return await self._reader.page(statement, keys, page, descending=order_by == "NEWEST")

    async def events(self, order_id: UUID, page: Page) -> PageOfRows | None:
        """Return a page of the order's events, oldest first."""
        statement = select(*event_columns(events, orders)).where(events.c.aggregate_id == orders.c.id)
        return await self._reader.page_of(orders, order_id, statement, events.c.position, page, descending=False)
