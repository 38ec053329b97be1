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
PostgreSQL can assign the number of a transaction that left no trace to another one.

A position is valid only in the database that it comes from (`DATABASE`): in one that was restored from a dump, events
that it had read may be missing, and their numbers may belong to others. The same holds if a standby is promoted that
lacks the last events, so on another timeline a position is valid if its event is still there. A cluster that is younger
than the dump counts transactions from the beginning, below those of the restored events: `commerce restore-events` lets
the function `event_xid` add to its numbers.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    bindparam,
    func,
    literal_column,
    null,
    select,
    true,
    tuple_,
    union_all,
)

from service.application.ports.events import EventPosition, EventPositionExpired
from service.db.reads.event_columns import HORIZON, event_columns
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


# Identifies the database: its cluster, itself, and the epoch of the last `commerce restore-events`. A statement with
# this column selects from `swept_events`.
DATABASE: ColumnElement[Any] = literal_column(
    "(SELECT hashtextextended(concat_ws(' ', control.system_identifier, database.oid, swept_events.epoch), 0)"
    " FROM pg_control_system() control, pg_database database WHERE database.datname = current_database())"
).label("database")
# The log shows the timeline immediately; the control file of a primary shows it after the next checkpoint.
TIMELINE: ColumnElement[Any] = literal_column(
    "CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())"
    " ELSE CAST(CAST('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) AS bit(32)) AS int) END"
).label("timeline")
_EVENT_MASK = (1 << 64) - 1
_ascending = (events.c.xid, events.c.position)
_part = (
    select(events)
    .where(tuple_(*_ascending) > tuple_(bindparam("xid", type_=Xid8()), bindparam("position", type_=BigInteger())))
    .where(events.c.xid < HORIZON)
    .order_by(*_ascending)
    # Not a parameter: PostgreSQL would not know that it is small, and plan for a large part of the table.
    .limit(literal_column(str(PAGE_SIZE)))
    .subquery("part")
)
_waiting_since = select(events.c.create_time).where(events.c.xid >= HORIZON).order_by(*_ascending)
_waiting_since = _waiting_since.limit(literal_column("1"))
# LIMIT keeps PostgreSQL from computing the columns again for each event.
_next = func.event_xid(func.pg_snapshot_xmax(func.pg_current_snapshot())).label("next_xid")
_log = select(swept_events, _next, DATABASE, TIMELINE).limit(literal_column("1")).subquery("log")
# One statement, so one snapshot: an event that is deleted meanwhile is either read, or known to be deleted.
PAGE = (
    select(
        _log.c.xid.label("swept_xid"),
        _log.c.position.label("swept_position"),
        _log.c.epoch,
        _log.c.next_xid,
        _log.c.database,
        _log.c.timeline,
        _waiting_since.scalar_subquery().label("waiting_since"),
        *event_columns(_part),
    )
    .select_from(_log.outerjoin(_part, true()))
    .order_by(_part.c.xid, _part.c.position)
)
_deleted = select(swept_events.c.xid, swept_events.c.position, null().cast(events.c.id.type).label("id"))
EARLIEST = _deleted.add_columns(DATABASE, TIMELINE)
_last = select(*_ascending, events.c.id).where(events.c.xid < HORIZON)
_last = _last.order_by(*(column.desc() for column in _ascending)).limit(1)
_either = union_all(_last.subquery().select(), _deleted).subquery()
LATEST = select(_either, DATABASE, TIMELINE).select_from(_either.join(swept_events, true()))
LATEST = LATEST.order_by(_either.c.xid.desc(), _either.c.position.desc()).limit(1)
EVENT = select(events.c.id).where(
    events.c.xid == bindparam("xid", type_=Xid8()), events.c.position == bindparam("position", type_=BigInteger())
)


class EventLog:
    """The event log; every method is one statement, `page` after a promotion two, and raises StoreError.

    Args:
        read: executes a statement.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    async def earliest(self) -> EventPosition:
        """Return the position before the oldest stored event."""
        (row,) = await self._read(EARLIEST)
        return _position(row, row)

    async def latest(self) -> EventPosition:
        """Return the position of the newest event, or that of `earliest` if there is none."""
        (row,) = await self._read(LATEST)
        return _position(row, row)

    async def page(self, after: EventPosition) -> EventPage:
        """Return up to `PAGE_SIZE` events after a position; raises EventPositionExpired."""
        rows = await self._read(PAGE, {"xid": after.xid, "position": after.position})
        log = rows[0]
        deleted = EventPosition(log.swept_xid, log.swept_position, log.database, log.timeline)
        if after.is_before(deleted) or not await self._is_of(log, after, deleted):
            raise EventPositionExpired(deleted)
        found = [(_position(row, log), row) for row in rows if row.xid is not None]
        end = found[-1][0] if found else after._replace(database=log.database, timeline=log.timeline)
        return EventPage(found, end, len(found) == PAGE_SIZE, log.waiting_since)

    async def _is_of(self, log: Row[Any], position: EventPosition, deleted: EventPosition) -> bool:
        """Return whether the position is valid in this database, on this timeline."""
        if not position.database:
            # A cursor of an earlier release: valid until the first restore.
            return not log.epoch and position.xid < log.next_xid
        if position.database != log.database:
            return False
        if position.timeline == log.timeline or position[:2] == deleted[:2]:
            return True
        # A standby was promoted: it has this event, and so every earlier one, or it lacks the last events.
        rows = await self._read(EVENT, {"xid": position.xid, "position": position.position})
        return [_identity(row.id) for row in rows] == [position.event]


def _position(row: Row[Any], log: Row[Any]) -> EventPosition:
    return EventPosition(row.xid, row.position, log.database, log.timeline, _identity(row.id))


def _identity(event_id: UUID | None) -> int:
    """Return the random part of an event's id; 0 if there is no event."""
    return event_id.int & _EVENT_MASK if event_id else 0
