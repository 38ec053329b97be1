"""Reads the event log in an order that never changes: no event appears later before an event that was already read.

Transactions become visible in a different order than the one in which they took their positions. A reader that asks for
positions above the last one that it has seen misses the events of an older transaction that commits later. So events
are ordered by the transaction that wrote them, then by position, and readers stop below the oldest transaction that is
still running. Every event that appears later sorts after those that were read. The price: an open write transaction,
even in another database of the same PostgreSQL cluster, delays all readers.

The transaction alone would give the events of one user or order in a wrong order: a transaction can have its id before
it locks the row that it changes, and let a younger one pass. So `xid` is the transaction's own id or, if that is
greater, the `xid` of the previous event of the same user or order (the trigger follow_previous_event). It is never less
than the transaction's own id, so below the oldest running transaction nothing is added.

An event position is always that of a committed event, never that of a transaction that merely ended: after a crash,
PostgreSQL can assign the number of a transaction that left no trace to another one. A database that is restored from a
dump counts transactions from the beginning, so its readers must start from the beginning too.
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

# The maximum number of events in one page.
PAGE_SIZE = 500


class Read(Protocol):
    """Executes a statement, as `service.db.connections.reader.StatementReader.all` does."""

    def __call__(
        self, statement: Select[Any], values: Mapping[str, object] | None = None
    ) -> Awaitable[Sequence[Row[Any]]]:
        """Return all rows of a statement."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in their order, each with its position.

    Attributes:
        end: the position of the last event; if there is none, the position that the page was read after.
        has_more: whether there may be further events already.
        waiting_since: the create time of the oldest event that cannot be read yet because of a running transaction.
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
    # Not a parameter: PostgreSQL would not know that it is small, and plan for a large part of the table.
    .limit(literal_column(str(PAGE_SIZE)))
    .subquery("part")
)
_waiting_since = select(events.c.create_time).where(events.c.xid >= _xmin).order_by(*_ascending)
_waiting_since = _waiting_since.limit(literal_column("1"))
# One statement, so one snapshot: an event that is deleted meanwhile is either read, or known to be deleted.
PAGE = (
    select(
        swept_events.c.xid.label("swept_xid"),
        swept_events.c.position.label("swept_position"),
        _waiting_since.scalar_subquery().label("waiting_since"),
        *event_columns(_part),
    )
    .select_from(swept_events.outerjoin(_part, true()))
    .order_by(_part.c.xid, _part.c.position)
)
EARLIEST = select(swept_events.c.xid, swept_events.c.position)
_last = select(*_ascending).where(events.c.xid < _xmin).order_by(*(column.desc() for column in _ascending)).limit(1)
_either = union_all(_last.subquery().select(), EARLIEST).subquery()
LATEST = select(_either).order_by(_either.c.xid.desc(), _either.c.position.desc()).limit(1)


class EventLog:
    """The event log; every method is one statement, and raises StoreError.

    Args:
        read: executes a statement.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    async def earliest(self) -> EventPosition:
        """Return the position before the oldest stored event."""
        (row,) = await self._read(EARLIEST)
        return EventPosition(row.xid, row.position)

    async def latest(self) -> EventPosition:
        """Return the position of the newest event, or that of `earliest` if there is none."""
        (row,) = await self._read(LATEST)
        return EventPosition(row.xid, row.position)

    async def page(self, after: EventPosition) -> EventPage:
        """Return up to `PAGE_SIZE` events after a position; raises EventPositionExpired."""
        rows = await self._read(PAGE, {"xid": after.xid, "position": after.position})
        deleted = EventPosition(rows[0].swept_xid, rows[0].swept_position)
        if after < deleted:
            raise EventPositionExpired(deleted)
        found = [(EventPosition(row.xid, row.position), row) for row in rows if row.xid is not None]
        return EventPage(found, found[-1][0] if found else after, len(found) == PAGE_SIZE, rows[0].waiting_since)
