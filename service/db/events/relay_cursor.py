"""What a relay stores in the database: its lock, and the position up to which it has published."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Executable, Row, Select, bindparam, false, func, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.application.ports.events import EventPosition
from service.db.errors import translated_errors
from service.db.events.log import DATABASE, TIMELINE, EventLog, EventPage
from service.db.tables import relay_cursors, swept_events
from service.db.types import Xid8

# How often a relay tries to become the active one.
STANDBY_SECONDS = 1.0

# PostgreSQL ends the session, and releases the lock, about 12 s after the relay's machine or the network has gone. By
# default that takes it two hours, in which no other relay becomes active.
_KEEPALIVE = select(
    *(
        func.set_config(f"tcp_keepalives_{name}", value, false())
        for name, value in (("idle", "6"), ("interval", "2"), ("count", "3"))
    )
)

LOCK = select(func.pg_try_advisory_lock(func.hashtextextended(bindparam("lock"), 0)))
_name = bindparam("name", type_=relay_cursors.c.name.type)
# Locks the row: retention deletes no event that this cursor still needs, from the moment that the cursor exists.
_earliest = select(_name, swept_events.c.xid, swept_events.c.position).with_for_update(read=True)
CREATE_CURSOR = insert(relay_cursors).from_select(["name", "xid", "position"], _earliest).on_conflict_do_nothing()
# The database that the relay reads now: its cursor is in this database, and was restored with the events.
CURSOR = select(relay_cursors.c.xid, relay_cursors.c.position, DATABASE, TIMELINE)
CURSOR = CURSOR.select_from(relay_cursors.join(swept_events, true())).where(relay_cursors.c.name == _name)
_position = {
    "xid": bindparam("xid", type_=Xid8()),
    "position": bindparam("position", type_=BigInteger()),
    "update_time": func.now(),
}
ADVANCE = (
    insert(relay_cursors).values(name=_name, **_position).on_conflict_do_update(index_elements=["name"], set_=_position)
)


class RelayLog:
    """The event log as one relay reads it; every method raises StoreError.

    All statements run on the connection that holds the relay's lock, so a relay that has lost the lock can neither read
    events nor move its cursor.
    """

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._log = EventLog(self._read)

    async def cursor(self) -> EventPosition:
        """Return the position to publish after; a new relay begins with the oldest stored event."""
        await self._execute(CREATE_CURSOR, {"name": self._name})
        (row,) = await self._read(CURSOR, {"name": self._name})
        return EventPosition(row.xid, row.position, row.database, row.timeline)

    async def page(self, after: EventPosition) -> EventPage:
        """Return the next events; raises EventPositionExpired."""
        return await self._log.page(after)

    async def advance(self, position: EventPosition) -> None:
        """Record this position as published."""
        await self._execute(ADVANCE, {"name": self._name, "xid": position.xid, "position": position.position})

    async def _execute(self, statement: Executable, values: Mapping[str, object]) -> None:
        with translated_errors():
            await self._connection.execute(statement, values)

    async def _read(self, statement: Select[Any], values: Mapping[str, object] | None = None) -> Sequence[Row[Any]]:
        with translated_errors():
            rows: Sequence[Row[Any]] = (await self._connection.execute(statement, values)).all()
            return rows


@asynccontextmanager
async def active_relay(engine: AsyncEngine, name: str) -> AsyncIterator[RelayLog]:
    """Wait until no other relay of this name is active, then be the active one until the block ends.

    Raises:
        StoreError: the database failed.
    """
    with translated_errors():
        connection = await engine.execution_options(isolation_level="AUTOCOMMIT").connect()
    try:
        with translated_errors():
            await connection.execute(_KEEPALIVE)
        while True:
            with translated_errors():
                if await connection.scalar(LOCK, {"lock": f"commerce relay {name}"}):
                    break
            await asyncio.sleep(STANDBY_SECONDS)
        yield RelayLog(connection, name)
    finally:
        # PostgreSQL releases the lock when the connection ends, so the connection must not return to the pool.
        await connection.invalidate()
        await connection.close()
