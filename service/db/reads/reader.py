"""Read pages of lists with keyset pagination."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, FromClause, Select, Table, bindparam, func, select, true, tuple_

from service.application.ports.queries import Page, PageOfRows
from service.db.connections.expensive_reads import Expensive
from service.db.connections.reader import StatementReader
from service.db.connections.statement import Statement

# Returns the size of the message of each row that a subquery returns, as an expression of its columns.
Size = Callable[[FromClause], ColumnElement[int]]

_row_bytes = attrgetter("row_bytes")
# Pages of more bytes take turns. For smaller ones it would take more time than it saves.
LARGE_BYTES = 64 * 1024
# How long no other large page begins, for each byte of one: about twice as long as the event loop works for it.
_SECONDS_PER_BYTE = 1.5e-8


class Reader(StatementReader):
    """Executes the read side's statements, and reads keyset pages; every method raises StoreError."""

    async def page(
        self,
        statement: Select[Any],
        keys: Sequence[ColumnElement[Any]],
        page: Page,
        *,
        size: Size,
        descending: bool,
        expensive: Expensive | None = None,
    ) -> PageOfRows:
        """Return one page of a statement without an order; `page_select` documents the arguments."""
        first, counted = page.after is None, page.include_total_size
        whole = page_select(statement, keys, first=first, include_total_size=counted, descending=descending, size=size)
        return await self.compiled_page(whole, page, expensive=expensive)

    async def compiled_page(
        self,
        statement: Statement | Select[Any],
        page: Page,
        values: Mapping[str, object] | None = None,
        *,
        expensive: Expensive | None = None,
    ) -> PageOfRows:
        """Return one page of a statement that `page_select` made; `values` are those of its filters' parameters."""
        if page.include_total_size:
            expensive = Expensive.COUNT
        parameters = {**(values or {}), "row_limit": page.size + 1, "max_bytes": page.max_bytes}
        parameters.update({f"after_{index}": value for index, value in enumerate(page.after or ())})
        found = await self.all(statement, parameters, expensive=expensive)
        total_size = 0
        if page.include_total_size:
            total_size = found[0].total_size
            found = [row for row in found if row.is_row]
        size = sum(map(_row_bytes, found))
        if size > LARGE_BYTES:
            # What follows until the page has been sent takes milliseconds.
            await self._large_page_turns.take(rest=size * _SECONDS_PER_BYTE)
        return fitting_page(found, page, total_size)

    async def page_of(
        self,
        parent: Table,
        parent_id: UUID,
        children: Select[Any],
        key: ColumnElement[Any],
        page: Page,
        *,
        descending: bool,
        size: Size,
    ) -> PageOfRows | None:
        """Return one page of the children of a row; None if the row does not exist.

        Args:
            parent: the table of the row.
            parent_id: the `id` of the row.
            children: selects the children from one table, by a condition that refers to `parent`.
            key: the sort column of `children`, which is unique.
            page: the page to return; its `after` is the key of the last child on the previous page.
            descending: whether the order is descending.
            size: returns the size of a child's message.
        """
        rows = children.correlate(parent).order_by(key.desc() if descending else key).limit(page.size + 1)
        if page.after is not None:
            (after,) = page.after
            rows = rows.where(key < after if descending else key > after)
        part = rows.lateral("part")
        statement = select(part).select_from(parent.outerjoin(part, true())).where(parent.c.id == parent_id)
        if page.include_total_size:
            # Selects by the parent's id and does not refer to its row: PostgreSQL would count again for each row of
            # the page.
            count = children.with_only_columns(func.count()).where(parent.c.id == parent_id).correlate(None)
            statement = statement.add_columns(count.scalar_subquery().label("total_size"))
        # A parent without children on this page has one row of nulls; a parent that does not exist has no row.
        expensive = Expensive.COUNT if page.include_total_size else None
        keys = (part.c[str(key.key)],)
        limited = limited_by_size(statement, size, keys, descending=descending, max_bytes=page.max_bytes)
        found = await self.all(limited, expensive=expensive)
        if not found:
            return None
        total_size = found[0].total_size if page.include_total_size else 0
        found = [row for row in found if getattr(row, str(key.key)) is not None]
        return fitting_page(found, page, total_size)


def page_select(
    statement: Select[Any],
    keys: Sequence[ColumnElement[Any]],
    *,
    first: bool,
    include_total_size: bool,
    descending: bool,
    size: Size | None = None,
) -> Select[Any]:
    """Return the statement for one page of a statement without an order.

    Args:
        statement: has its filters, and returns at most one row for each row of the table of `keys`.
        keys: the sort columns, unique together, in the order of an index.
        first: whether it is the first page; a later page has parameters for the position after which it begins.
        include_total_size: whether the rows of all pages are counted.
        descending: whether the order is descending.
        size: returns the size of a row's message; None for a statement whose rows are not sent to a client.
    """
    rows = statement.order_by(*(key.desc() if descending else key for key in keys))
    rows = rows.limit(bindparam("row_limit", type_=BigInteger))
    if not first:
        position = tuple_(*keys)
        after = tuple_(*(bindparam(f"after_{index}", type_=key.type) for index, key in enumerate(keys)))
        rows = rows.where(position < after if descending else position > after)
    if size is not None:
        rows = limited_by_size(rows, size, keys, descending=descending)
    if not include_total_size:
        return rows
    # The count and the page see one snapshot; an empty page still has one row, with the count.
    part = rows.add_columns(true().label("is_row")).subquery("part")
    count = select(func.count().label("total_size")).select_from(statement.subquery("counted")).subquery("count")
    both = select(part, count.c.total_size).select_from(count.outerjoin(part, true()))
    return both.order_by(*(_ordered(part, key, descending=descending) for key in keys))


def limited_by_size(
    rows: Select[Any],
    size: Size,
    keys: Sequence[ColumnElement[Any]] = (),
    *,
    descending: bool = False,
    max_bytes: int | None = None,
) -> Select[Any]:
    """Return a statement for the first of these rows: all that fit into `max_bytes`, and up to two more.

    At least two are returned, because a page has a row even if that does not fit, and must know whether more follow.
    Other rows are not sent by PostgreSQL, which does not even read a long message to learn its length.

    Args:
        rows: the statement for all rows, with a limit.
        size: returns the size of a row's message; the result has it as `row_bytes`.
        keys: the columns by which the rows are sorted, unique together.
        descending: whether the order is descending.
        max_bytes: the maximum size; None for a parameter of this name.
    """
    names = [f"key_{index}" for index in range(len(keys))]
    # The columns themselves, because the order of what is computed from them is not known: PostgreSQL would sort again.
    sorting = (key.label(name) for key, name in zip(keys, names, strict=True))
    candidates = rows.add_columns(*sorting).subquery("candidates")
    ordered = [_ordered_by(candidates, name, descending=descending) for name in names]
    row_bytes = size(candidates)
    before = func.sum(row_bytes).over(order_by=ordered or None, rows=(None, -2)).label("bytes_before")
    measured = select(candidates, row_bytes.label("row_bytes"), before).subquery("measured")
    columns = [column for column in measured.c if column.name not in {*names, "bytes_before"}]
    limit = bindparam("max_bytes", max_bytes, type_=BigInteger, required=max_bytes is None)
    first = select(*columns).where(func.coalesce(measured.c.bytes_before, 0) <= limit)
    return first.order_by(*(_ordered_by(measured, name, descending=descending) for name in names))


def fitting_page(rows: Sequence[Any], page: Page, total_size: int) -> PageOfRows:
    """Return the rows of a page, which may be followed by one more row: as many as fit into it, but at least one."""
    fitting = rows[: page.size]
    if sum(map(_row_bytes, fitting)) <= page.max_bytes:
        return PageOfRows(fitting, len(rows) > page.size, total_size)
    size = 0
    for index, row in enumerate(fitting):
        size += row.row_bytes
        if size > page.max_bytes and index:
            return PageOfRows(rows[:index], has_more=True, total_size=total_size)
    return PageOfRows(fitting, len(rows) > page.size, total_size)


def _ordered(part: FromClause, key: ColumnElement[Any], *, descending: bool) -> ColumnElement[Any]:
    return _ordered_by(part, str(key.key), descending=descending)


def _ordered_by(part: FromClause, name: str, *, descending: bool) -> ColumnElement[Any]:
    return part.c[name].desc() if descending else part.c[name]
