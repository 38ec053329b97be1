"""The read side of orders; what each method answers is written at `service.application.ports.OrderQueries`."""

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Date,
    Dialect,
    Row,
    Select,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    exists,
    func,
    null,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.dialects.postgresql import aggregate_order_by

from service.application.ports import OrderFilter, Page, PageOfRows, TopUsers
from service.db.driver import Statement
from service.db.queries.events import event_columns
from service.db.queries.reader import Reader
from service.db.tables import OPEN, events, order_items, order_tags, orders, tags
from service.domain.orders import OPEN_STATUSES
from service.domain.tags import MAX_LENGTH


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
    """Return a statement for whole orders: their columns, and each one's `items` and `tag_names` as one value each."""
    item = func.json_build_array(*(order_items.c[name] for name in ItemRow._fields))
    items = select(func.json_agg(aggregate_order_by(item, order_items.c.id))).where(
        order_items.c.order_id == orders.c.id
    )
    names = (
        select(func.array_agg(aggregate_order_by(tags.c.name, tags.c.name)))
        .select_from(order_tags.join(tags))
        .where(order_tags.c.order_id == orders.c.id)
    )
    return select(
        orders,
        # As text: the driver would read JSON numbers as floats.
        type_coerce(cast(items.scalar_subquery(), Text), _Items).label("items"),
        names.scalar_subquery().label("tag_names"),
    )


_ORDERS = _select_orders()
_BY_IDS = Statement(_ORDERS.where(orders.c.id == any_(bindparam("ids", type_=ARRAY(PG_UUID(as_uuid=True))))))
_BY_NUMBER = Statement(_ORDERS.where(orders.c.order_number == bindparam("order_number")))

_ORDER_COUNT = select(func.count()).select_from(order_tags).where(order_tags.c.tag_id == tags.c.id)
_TAGS = select(tags.c.name, _ORDER_COUNT.scalar_subquery().label("order_count"))
# No name is longer, and no character comes after this one: every name with a prefix is between it and it with this.
_LAST_SUFFIX = chr(sys.maxunicode) * MAX_LENGTH


def _with_tag(tag: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether an order has a tag that meets a condition."""
    return exists().where(order_tags.c.order_id == orders.c.id, tag)


class OrderQueries:
    """Implements `service.application.ports.OrderQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._by_id = reader.point_reads(_BY_IDS, "ids")

    async def by_id(self, order_id: UUID) -> Row[Any] | None:
        """Return the order with this id."""
        order: Row[Any] | None = await self._by_id.get(order_id)
        return order

    async def by_ids(self, order_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
        """Return the orders with these ids, in any order."""
        return await self._reader.all(_BY_IDS, {"ids": order_ids})

    async def by_number(self, order_number: str) -> Row[Any] | None:
        """Return the order with this number."""
        return await self._reader.first(_BY_NUMBER, {"order_number": order_number})

    async def page(self, where: OrderFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of orders."""
        keys = (orders.c.create_time, orders.c.id)
        return await self._reader.page(_filtered(_ORDERS, where), keys, page, descending=order_by == "NEWEST")

    async def statistics(self, where: OrderFilter, top_users: TopUsers) -> Sequence[Row[Any]]:
        """Return sums by day, status and currency, and for the users with the most orders, by currency."""
        day = cast(func.timezone("UTC", orders.c.create_time), Date).label("day")
        columns = (day, orders.c.status, orders.c.currency, orders.c.user_id, orders.c.total_amount)
        selected = _filtered(select(*columns), where).cte("selected")
        count, total = func.count().label("order_count"), func.sum(selected.c.total_amount).label("total_amount")
        group = (selected.c.day, selected.c.status, selected.c.currency)
        by_day = select(*group, null().label("user_id"), count, total).group_by(*group)
        most = select(selected.c.user_id, count).group_by(selected.c.user_id).having(func.count() > top_users.more_than)
        top = most.order_by(count.desc(), selected.c.user_id).limit(top_users.limit).cte("top")
        nothing = (null().label("day"), null().label("status"))
        by_user = (
            select(*nothing, selected.c.currency, top.c.user_id, top.c.order_count, total)
            .join_from(top, selected, top.c.user_id == selected.c.user_id)
            .group_by(top.c.user_id, top.c.order_count, selected.c.currency)
        )
        both = union_all(by_day, by_user).subquery("statistics")
        # Days, or within users their number of orders, then the rest to make the order the same every time.
        keys = (both.c.day, both.c.status, both.c.order_count.desc(), both.c.user_id, both.c.currency)
        return await self._reader.all(select(both).order_by(*keys))

    async def events(self, order_id: UUID, page: Page) -> PageOfRows | None:
        """Return a page of the order's events, oldest first."""
        statement = select(*event_columns(events, orders)).where(events.c.aggregate_id == orders.c.id)
        return await self._reader.page_of(orders, order_id, statement, events.c.position, page, descending=False)

    async def tags(self, prefix: str, page: Page) -> PageOfRows:
        """Return a page of the tags that begin with `prefix`, by name."""
        statement = _TAGS
        if prefix:
            # Not LIKE: PostgreSQL finds an index for it only if it knows the prefix when it plans.
            statement = statement.where(tags.c.name >= prefix, tags.c.name <= prefix + _LAST_SUFFIX)
        return await self._reader.page(statement, (tags.c.name,), page, descending=False)


def _filtered(statement: Select[Any], where: OrderFilter) -> Select[Any]:
    if where.user_id is not None:
        statement = statement.where(orders.c.user_id == where.user_id)
    if where.statuses is not None:
        statement = statement.where(orders.c.status.in_(where.statuses))
        if set(where.statuses) <= set(OPEN_STATUSES):
            statement = statement.where(OPEN)
    if where.created_from is not None:
        statement = statement.where(orders.c.create_time >= where.created_from)
    if where.created_before is not None:
        statement = statement.where(orders.c.create_time < where.created_before)
    if where.tags_any:
        tag_ids = select(tags.c.id).where(tags.c.name.in_(where.tags_any))
        statement = statement.where(_with_tag(order_tags.c.tag_id.in_(tag_ids)))
    for name in where.tags_all:
        tag_id = select(tags.c.id).where(tags.c.name == name).scalar_subquery()
        statement = statement.where(_with_tag(order_tags.c.tag_id == tag_id))
    return statement
