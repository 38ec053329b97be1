"""Reads the log of events in an order that holds.

Transactions become visible in another order than they took their positions in: whoever asks for positions above the
last one seen misses what an older transaction commits later. So events are ordered by the transaction that wrote them,
then by position, and readers stop below the oldest transaction that still runs. What comes later always sorts after
what was read; the price is that an open write transaction, even of another database of the same PostgreSQL, holds all
readers up.

A place is always that of a committed event, never of a transaction that merely ended: after a crash PostgreSQL can give
the number of one that left no trace to another. A database restored from a dump counts transactions anew: there,
readers must start anew too.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Row,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)

from service.application.ports import Place, PlaceSwept
from service.db.tables import Xid8, events, orders, swept_events
from service.domain.orders import OrderStatus

# Events in one read.
PAGE = 500


class Read(Protocol):
    """Runs a statement, as `service.db.queries.reader.Reader.all`."""

    def __call__(
        self, statement: Select[Any], values: Mapping[str, object] | None = None
    ) -> Awaitable[Sequence[Row[Any]]]:
        """Return all rows of a statement."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in their order, each with its place.

    Attributes:
        end: the place of the last event, or where the page starts.
        has_more: whether more may follow at once.
        waiting_since: when the first event was written that a running transaction keeps from being read.
    """

    events: Sequence[tuple[Place, Row[Any]]]
    end: Place
    has_more: bool
    waiting_since: datetime | None


def event_columns(event: FromClause, order: FromClause | None = None) -> list[ColumnElement[Any]]:
    """Return the columns of an event: those of `events`, also where the writer did not say whose the order was.

    Then the type tells the status, or the order as it is now, which is looked up unless `order` is its row.
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


_xmin = func.pg_snapshot_xmin(func.pg_current_snapshot())
_ascending = (events.c.xid, events.c.position)
_part = (
    select(events)
    .where(tuple_(*_ascending) > tuple_(bindparam("xid", type_=Xid8()), bindparam("position", type_=BigInteger())))
    .where(events.c.xid < _xmin)
    .order_by(*_ascending)
    # Not a parameter: not knowing that it is small, PostgreSQL would plan for a large part of the table.
    .limit(literal_column(str(PAGE)))
    .subquery("part")
)
_waiting_since = select(events.c.create_time).where(events.c.xid >= _xmin).order_by(*_ascending)
_waiting_since = _waiting_since.limit(literal_column("1"))
# One statement, so one snapshot: events that are swept meanwhile are either still read or known to be gone.
_PAGE = (
    select(
        swept_events.c.xid.label("swept_xid"),
        swept_events.c.position.label("swept_position"),
        _waiting_since.scalar_subquery().label("waiting_since"),
        *event_columns(_part),
    )
    .select_from(swept_events.outerjoin(_part, true()))
    .order_by(_part.c.xid, _part.c.position)
)
_EARLIEST = select(swept_events.c.xid, swept_events.c.position)
_last = select(*_ascending).where(events.c.xid < _xmin).order_by(*(column.desc() for column in _ascending)).limit(1)
_either = union_all(_last.subquery().select(), _EARLIEST).subquery()
_LATEST = select(_either).order_by(_either.c.xid.desc(), _either.c.position.desc()).limit(1)


class EventLog:
    """The log of events; every method is one statement, and raises StoreError.

    Args:
        read: runs a statement.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    async def earliest(self) -> Place:
        """Return the place before the first event that is kept."""
        (row,) = await self._read(_EARLIEST)
        return Place(row.xid, row.position)

    async def latest(self) -> Place:
        """Return the place of the last event, or as `earliest` if there is none."""
        (row,) = await self._read(_LATEST)
        return Place(row.xid, row.position)

    async def page(self, after: Place) -> EventPage:
        """Return up to `PAGE` events after a place; raises PlaceSwept."""
        rows = await self._read(_PAGE, {"xid": after.xid, "position": after.position})
        swept = Place(rows[0].swept_xid, rows[0].swept_position)
        if after < swept:
            raise PlaceSwept(swept)
        found = [(Place(row.xid, row.position), row) for row in rows if row.xid is not None]
        return EventPage(found, found[-1][0] if found else after, len(found) == PAGE, rows[0].waiting_since)
