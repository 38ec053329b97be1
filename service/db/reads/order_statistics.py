"""Sums over orders: by day, status and currency, and for the users with the most orders."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, BigInteger, Date, Select, bindparam, cast, func, null, select, union_all

from service.db.reads.order_conditions import on_orders
from service.db.tables import orders


def statistics_statement(names: Sequence[str]) -> Select[Any]:
    """Return the statement for both kinds of rows of `service.application.ports.queries.OrderQueries.statistics`.

    Its parameters `more_than` and `top_limit` say which top users to include, `row_limit` how many rows to return.

    Args:
        names: the conditions on the orders (`service.db.reads.order_conditions`).
    """
    day = cast(func.timezone("UTC", orders.c.create_time), Date).label("day")
    columns = (day, orders.c.status, orders.c.currency, orders.c.user_id, orders.c.total_amount)
    # Not MATERIALIZED, because PostgreSQL would write all the orders to disk; it reads them again for each use instead.
    selected = select(*columns).where(*map(on_orders, names)).cte("selected").prefix_with("NOT MATERIALIZED")
    both = union_all(_by_day(selected), _by_top_user(selected)).subquery("statistics")
    # The rows of days come first, then those of the users, most orders first. The other columns make the order stable.
    keys = (both.c.day, both.c.status, both.c.order_count.desc(), both.c.user_id, both.c.currency)
    return select(both).order_by(*keys).limit(bindparam("row_limit", type_=BigInteger))


def _by_day(selected: CTE) -> Select[Any]:
    count, total = func.count().label("order_count"), func.sum(selected.c.total_amount).label("total_amount")
    group = (selected.c.day, selected.c.status, selected.c.currency)
    return select(*group, null().label("user_id"), count, total).group_by(*group)


def _by_top_user(selected: CTE) -> Select[Any]:
    count, total = func.count().label("order_count"), func.sum(selected.c.total_amount).label("total_amount")
    more_than, limit = (bindparam(name, type_=BigInteger) for name in ("more_than", "top_limit"))
    most = select(selected.c.user_id, count).group_by(selected.c.user_id).having(func.count() > more_than)
    top = most.order_by(count.desc(), selected.c.user_id).limit(limit).cte("top")
    no_day = (null().label("day"), null().label("status"))
    return (
        select(*no_day, selected.c.currency, top.c.user_id, top.c.order_count, total)
        .join_from(top, selected, top.c.user_id == selected.c.user_id)
        .group_by(top.c.user_id, top.c.order_count, selected.c.currency)
    )
