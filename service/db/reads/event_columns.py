"""The columns of events, and the transaction below which they are final."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, Text, case, cast, func, select

from service.db.tables import orders
from service.domain.orders import OrderStatus

# The oldest running transaction, as `events.xid` has it: all events below it are visible.
HORIZON = func.event_xid(func.pg_snapshot_xmin(func.pg_current_snapshot()))


def event_columns(event: FromClause, order: FromClause | None = None) -> list[ColumnElement[Any]]:
    """Return the columns of an event: those of `events`, with missing values filled in.

    An earlier release wrote events of orders without `user_id` and `status`. A missing `user_id` is read from the order
    as it is now, and so is a missing `status` unless the type of the event implies it.

    Args:
        event: the rows of events.
        order: the rows of the events' orders, if the statement has them; otherwise each order is looked up.
    """
    plain = [column for column in event.c if column.name not in {"user_id", "status"}]
    user_id, order_status = (
        order.c[name]
        if order is not None
        else select(orders.c[name]).where(orders.c.id == event.c.aggregate_id).scalar_subquery()
        for name in ("user_id", "status")
    )
    status = case(
        (event.c.type.in_(["CREATED", "UPDATED"]), OrderStatus.PENDING.value),
        (event.c.type.in_([status.value for status in OrderStatus]), event.c.type),
        else_=cast(order_status, Text),
    )
    is_order = event.c.aggregate_type == "order"
    return [
        *plain,
        case((is_order, func.coalesce(event.c.user_id, user_id))).label("user_id"),
        case((is_order, func.coalesce(event.c.status, status))).label("status"),
    ]
