"""The read side of orders; `service.application.ports.queries.OrderQueries` documents each method."""

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Integer, Row, Text, bindparam, cast, func, literal_column, select

from service.application.ports.queries import (
    MAX_PAGE_BYTES,
    MAX_SUMS,
    OrderFilter,
    OrderOrder,
    Page,
    PageOfRows,
    TopUsers,
)
from service.db.arrays import is_one_of
from service.db.connections.expensive_reads import Expensive
from service.db.connections.statement import Statement
from service.db.reads.columns import text_size
from service.db.reads.event_columns import event_columns
from service.db.reads.order_columns import ORDERS, order_size
from service.db.reads.order_conditions import is_about_tags, on_orders, parse_filter
from service.db.reads.order_statistics import statistics_statement
from service.db.reads.orders_by_tag import ids_by_tag
from service.db.reads.reader import Reader, limited_by_size, page_select
from service.db.tables import events, order_tags, orders, tags
from service.domain.tags import MAX_LENGTH

_BY_IDS = Statement("orders_by_ids", ORDERS.where(is_one_of(orders.c.id, "ids")))
_BATCH = Statement("batch_of_orders", limited_by_size(ORDERS.where(is_one_of(orders.c.id, "ids")), order_size))
_BY_NUMBER = Statement("order_by_number", ORDERS.where(orders.c.order_number == bindparam("order_number")))

_ORDER_COUNT = select(func.count()).select_from(order_tags).where(order_tags.c.tag_id == tags.c.id)
# More than what the message of an event needs beside its changes, which take less than their JSON.
_EVENT_BYTES = 300
_TAGS = select(tags.c.name, _ORDER_COUNT.scalar_subquery().label("order_count"))
# The last string in sort order that is as long as a tag can be: every tag with a prefix sorts between the prefix and
# the prefix followed by this string.
_LAST_SUFFIX = chr(sys.maxunicode) * MAX_LENGTH


def _tag_size(row: FromClause) -> ColumnElement[int]:
    # With the count, and the tags and lengths of the fields.
    return func.octet_length(row.c.name) + literal_column("20", Integer)


# Limited, because the number of tags in a request, which the client chooses, decides the number of statements.
@lru_cache(maxsize=256)
def _page_statement(names: tuple[str, ...], *, descending: bool, first: bool, include_total_size: bool) -> Statement:
    """Return the statement for all lists with these conditions, compiled once."""
    if _is_found_by_tag(names, include_total_size=include_total_size):
        wanted = ORDERS.where(orders.c.id.in_(ids_by_tag(names, descending=descending, first=first)))
    else:
        wanted = ORDERS.where(*map(on_orders, names))
    keys = (orders.c.create_time, orders.c.id)
    page = page_select(
        wanted,
        keys,
        first=first,
        include_total_size=include_total_size,
        descending=descending,
        size=order_size,
    )
    return Statement("list_orders", page)


@lru_cache(maxsize=256)
def _statistics_statement(names: tuple[str, ...]) -> Statement:
    return Statement("order_statistics", statistics_statement(names))


def _event_size(row: FromClause) -> ColumnElement[int]:
    return text_size(cast(row.c.changes, Text)) + text_size(row.c.actor) + literal_column(str(_EVENT_BYTES), Integer)


def _is_found_by_tag(names: Sequence[str], *, include_total_size: bool) -> bool:
    # Not for the orders of one user, who has fewer orders than most tags. Nor with a total size, because to count the
    # orders, PostgreSQL must read all of them anyway.
    return any(map(is_about_tags, names)) and "user_id" not in names and not include_total_size


class OrderQueries:
    """Implements `service.application.ports.queries.OrderQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._by_id = reader.batched_loader(_BY_IDS, "ids")

    async def by_id(self, order_id: str) -> Row[Any] | None:
        """Return the order with this id, in lower case."""
        order: Row[Any] | None = await self._by_id(order_id)
        return order

    async def by_ids(self, order_ids: Sequence[str], max_bytes: int = MAX_PAGE_BYTES) -> Sequence[Row[Any]]:
        """Return the orders with these ids, in any order; the sizes of their messages have a limit."""
        return await self._reader.all(_BATCH, {"ids": order_ids, "max_bytes": max_bytes})

    async def by_number(self, order_number: str) -> Row[Any] | None:
        """Return the order with this number."""
        return await self._reader.first(_BY_NUMBER, {"order_number": order_number})

    async def page(self, where: OrderFilter, order_by: OrderOrder, page: Page) -> PageOfRows:
        """Return a page of orders."""
        names, values = parse_filter(where)
        statement = _page_statement(
            names,
            descending=order_by == OrderOrder.NEWEST,
            first=page.after is None,
            include_total_size=page.include_total_size,
        )
        return await self._reader.compiled_page(statement, page, values)

    async def statistics(self, where: OrderFilter, top_users: TopUsers) -> Sequence[Row[Any]]:
        """Return sums by day, status and currency, and sums by currency for the users with the most orders."""
        names, values = parse_filter(where)
        statement = _statistics_statement(names)
        values |= {"more_than": top_users.more_than, "top_limit": top_users.limit, "row_limit": MAX_SUMS + 1}
        return await self._reader.all(statement, values, expensive=Expensive.STATISTICS)

    async def events(self, order_id: UUID, page: Page) -> PageOfRows | None:
        """Return a page of the order's events, oldest first."""
        statement = select(*event_columns(events, orders)).where(events.c.aggregate_id == orders.c.id)
        return await self._reader.page_of(
            orders, order_id, statement, events.c.position, page, descending=False, size=_event_size
        )

    async def tags(self, prefix: str, page: Page) -> PageOfRows:
        """Return a page of the tags that begin with `prefix`, sorted by name."""
        statement = _TAGS
        if prefix:
            # Not LIKE: PostgreSQL uses an index for it only if it knows the prefix when it plans the statement.
            statement = statement.where(tags.c.name >= prefix, tags.c.name <= prefix + _LAST_SUFFIX)
        # Counts the orders of each tag, which can be many.
        return await self._reader.page(
            statement, (tags.c.name,), page, size=_tag_size, descending=False, expensive=Expensive.COUNT
        )
