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
    Row,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)

from service.application.ports.events import EventPosition, EventPositionExpired
from service.db.reads.event_columns import event_columns
from service.db.tables import events, swept_events
from service.db.types import Xid8

# Events in one read.
PAGE = 500


class Read(Protocol):
    """Runs a statement, as `service.db.reads.reader.Reader.all`."""

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

    events: Sequence[tuple[EventPosition, Row[Any]]]
    end: EventPosition
    has_more: bool
    waiting_since: datetime | None


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

    async def earliest(self) -> EventPosition:
        """Return the place before the first event that is kept."""
        (row,) = await self._read(_EARLIEST)
        return EventPosition(row.xid, row.position)

    async def latest(self) -> EventPosition:
        """Return the place of the last event, or as `earliest` if there is none."""
        (row,) = await self._read(_LATEST)
        return EventPosition(row.xid, row.position)

    async def page(self, after: EventPosition) -> EventPage:
        """Return up to `PAGE` events after a place; raises EventPositionExpired."""
        rows = await self._read(_PAGE, {"xid": after.xid, "position": after.position})
        swept = EventPosition(rows[0].swept_xid, rows[0].swept_position)
        if after < swept:
            raise EventPositionExpired(swept)
        found = [(EventPosition(row.xid, row.position), row) for row in rows if row.xid is not None]
        return EventPage(found, found[-1][0] if found else after, len(found) == PAGE, rows[0].waiting_since)
