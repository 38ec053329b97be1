"""The read side of orders; what each method answers is written at `service.application.ports.queries.OrderQueries`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Date,
    Dialect,
    Row,
    Select,
    Text,
    TextClause,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    exists,
    func,
    null,
    select,
    true,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, array

from service.application.ports.queries import OrderFilter, Page, PageOfRows, TopUsers
from service.db.arrays import is_one_of
from service.db.connections.statement import Statement
from service.db.reads.columns import in_microseconds, in_ten_thousandths, ten_thousandths, unless_encoded
from service.db.reads.event_columns import event_columns
from service.db.reads.reader import Reader, page_select
from service.db.tables import OPEN, events, order_items, order_tags, orders, tags
from service.db.types import EnumText
from service.domain.orders import OPEN_STATUSES, OrderStatus
from service.domain.tags import MAX_LENGTH


class _Items(TypeDecorator[list[list[Any]]]):
    """A JSON array of items, each an array: id, product_id, name, quantity, unit_price and subtotal; null as None.

    Amounts are in ten-thousandths: JSON's numbers with decimals would be read as floats.
    """

    impl = Text
    cache_ok = True

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[str | None], list[list[Any]] | None]:
        """Return what gives the items."""
        return lambda value: orjson.loads(value) if value else None


class _Metadata(TypeDecorator[dict[str, str]]):
    """JSON as text, which is read by a faster parser than the driver's."""

    impl = Text
    cache_ok = True

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[str | None], dict[str, str] | None]:
        """Return what gives the metadata, None where there is none."""
        return lambda value: orjson.loads(value) if value and value != "{}" else None


def _select_orders() -> Select[Any]:
    """Return the statement that reads orders as rows (`service.application.ports.queries.Row`).

    `tag_names` and `items` are one value each.
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


_ORDERS = _select_orders()
_BY_IDS = Statement("orders_by_ids", _ORDERS.where(is_one_of(orders.c.id, "ids")))
_BY_NUMBER = Statement("order_by_number", _ORDERS.where(orders.c.order_number == bindparam("order_number")))

_ORDER_COUNT = select(func.count()).select_from(order_tags).where(order_tags.c.tag_id == tags.c.id)
_TAGS = select(tags.c.name, _ORDER_COUNT.scalar_subquery().label("order_count"))
# No name is longer, and no character comes after this one: every name with a prefix is between it and it with this.
_LAST_SUFFIX = chr(sys.maxunicode) * MAX_LENGTH


_TAG_IDS = select(tags.c.id).where(tags.c.name == any_(bindparam("tags_any", type_=ARRAY(Text))))
# How far orders of a tag are counted to find the tag that has the fewest.
_SOME = 1000
# What a list can ask for, by names of which each stands for a parameter or for none; beside these the tags.
_CONDITIONS: Mapping[str, ColumnElement[bool] | TextClause] = {
    "user_id": orders.c.user_id == bindparam("user_id"),
    # Apart from `statuses`, so that PostgreSQL can take the rows from an index in their order.
    "status": orders.c.status == bindparam("status"),
    "statuses": orders.c.status == any_(bindparam("statuses", type_=ARRAY(EnumText(OrderStatus)))),
    "open": OPEN,
    "created_from": orders.c.create_time >= bindparam("created_from"),
    "created_before": orders.c.create_time < bindparam("created_before"),
}


def _is_tag(name: str) -> bool:
    return name.startswith(("tag_", "tags_"))


def _condition(name: str) -> ColumnElement[bool] | TextClause:
    """Return the condition of a name."""
    return exists().where(order_tags.c.order_id == orders.c.id, _tag(name)) if _is_tag(name) else _CONDITIONS[name]


def _tag(name: str) -> ColumnElement[bool]:
    """Return what the name `tags_any`, or that of a tag's parameter, asks of a row of `order_tags`."""
    if name == "tags_any":
        return order_tags.c.tag_id.in_(_TAG_IDS)
    return order_tags.c.tag_id == select(tags.c.id).where(tags.c.name == bindparam(name)).scalar_subquery()


def _ids_by_tag(names: Sequence[str], *, descending: bool, first: bool) -> Select[Any]:
    """Return the ids of a page of orders with tags, and of few others, without a look at all that have the tags.

    Each of the tags of which an order must have any gives its part of the page, from an index in the page's order. Of
    tags that it must have all, only the rarest does, as far as a short count tells.
    """
    required = [bindparam(name, type_=Text) for name in names if _is_tag(name) and name != "tags_any"]
    if required:
        wanted = func.unnest(array(required)).table_valued("name", name="wanted")
        some = select(order_tags.c.tag_id).where(order_tags.c.tag_id == tags.c.id).limit(_SOME).correlate(tags)
        number = select(func.count()).select_from(some.subquery()).scalar_subquery()
        # One that no order ever had has none.
        among = wanted.outerjoin(tags, tags.c.name == wanted.c.name)
        tag = select(tags.c.id).select_from(among).order_by(number).limit(1)
    else:
        tag = _TAG_IDS
    chosen, tagged = tag.subquery("chosen"), order_tags.alias("tagged")

    def condition(name: str) -> ColumnElement[bool] | TextClause:
        if _is_tag(name):
            # Not EXISTS, for which PostgreSQL would begin with all orders of this tag.
            has = select(true()).where(order_tags.c.order_id == tagged.c.order_id, _tag(name)).limit(1)
            return has.scalar_subquery()
        # The times are in the index too.
        times = {
            "created_from": tagged.c.create_time >= bindparam("created_from"),
            "created_before": tagged.c.create_time < bindparam("created_before"),
        }
        return times.get(name, _CONDITIONS[name])

    others = [condition(name) for name in names if required or name != "tags_any"]
    of_one = select(tagged.c.order_id).join(orders, orders.c.id == tagged.c.order_id)
    of_one = of_one.where(tagged.c.tag_id == chosen.c.id, *others)
    keys = (tagged.c.create_time, tagged.c.order_id)
    part = page_select(of_one, keys, first=first, include_total_size=False, descending=descending)
    part_of_page = part.correlate(chosen).lateral("part")
    return select(part_of_page.c.order_id).select_from(chosen.join(part_of_page, true()))


def _filters(where: OrderFilter) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return the names of the conditions that a filter has, and the values of their parameters."""
    values: dict[str, object] = {
        "user_id": where.user_id,
        "created_from": where.created_from,
        "created_before": where.created_before,
        "tags_any": list(where.tags_any) or None,
        **{f"tag_{index}": name for index, name in enumerate(where.tags_all)},
    }
    values = {name: value for name, value in values.items() if value is not None}
    names = list(values)
    if where.statuses is not None:
        names.append("status" if len(where.statuses) == 1 else "statuses")
        values |= {"status": where.statuses[0], "statuses": where.statuses}
        if set(where.statuses) <= set(OPEN_STATUSES):
            names.append("open")
    return tuple(names), values


# Callers choose the shapes by the number of tags too, so not all are kept.
@lru_cache(maxsize=256)
def _page_statement(names: tuple[str, ...], *, descending: bool, first: bool, include_total_size: bool) -> Statement:
    """Return the statement for all lists of one shape, compiled once."""
    keys = (orders.c.create_time, orders.c.id)
    wanted = _ORDERS.where(*map(_condition, names))
    # A user has fewer orders than most tags; and a count is of all, in whatever order.
    if any(map(_is_tag, names)) and "user_id" not in names and not include_total_size:
        wanted = _ORDERS.where(orders.c.id.in_(_ids_by_tag(names, descending=descending, first=first)))
    return Statement(
        "list_orders",
        page_select(wanted, keys, first=first, include_total_size=include_total_size, descending=descending),
    )


class OrderQueries:
    """Implements `service.application.ports.queries.OrderQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._by_id = reader.batched_loader(_BY_IDS, "ids")

    async def by_id(self, order_id: str) -> Row[Any] | None:
        """Return the order with this id, in lower case."""
        order: Row[Any] | None = await self._by_id(order_id)
        return order

    async def by_ids(self, order_ids: Sequence[str]) -> Sequence[Row[Any]]:
        """Return the orders with these ids, in any order."""
        return await self._reader.all(_BY_IDS, {"ids": order_ids})

    async def by_number(self, order_number: str) -> Row[Any] | None:
        """Return the order with this number."""
        return await self._reader.first(_BY_NUMBER, {"order_number": order_number})

    async def page(self, where: OrderFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of orders."""
        names, values = _filters(where)
        statement = _page_statement(
            names, descending=order_by == "NEWEST", first=page.after is None, include_total_size=page.include_total_size
        )
        return await self._reader.compiled_page(statement, page, values)

    async def statistics(self, where: OrderFilter, top_users: TopUsers) -> Sequence[Row[Any]]:
        """Return sums by day, status and currency, and for the users with the most orders, by currency."""
        day = cast(func.timezone("UTC", orders.c.create_time), Date).label("day")
        columns = (day, orders.c.status, orders.c.currency, orders.c.user_id, orders.c.total_amount)
        names, values = _filters(where)
        # Read anew for each part: to keep it for all of them would write it to the disk.
        selected = select(*columns).where(*map(_condition, names)).cte("selected").prefix_with("NOT MATERIALIZED")
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
        return await self._reader.all(select(both).order_by(*keys), values)

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
