"""What a relay keeps in the database: its lock, and how far it has published."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row, Select, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.application.ports.events import EventPosition
from service.db.errors import translated_errors
from service.db.events.log import EventLog, EventPage
from service.db.tables import relay_cursors, swept_events

STANDBY_SECONDS = 1.0


class RelayLog:
    """The events as one relay reads them; every method raises StoreError.

    All on the connection that holds the relay's lock: a relay that has lost the lock can neither read nor say how far
    it came.
    """

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._log = EventLog(self._read)

    async def cursor(self) -> EventPosition:
        """Return the place after which to go on; a new relay begins with the earliest event."""
        columns = ["name", "xid", "position"]
        # Locked against the sweep, which keeps what comes after this from then on.
        earliest = select(literal(self._name), swept_events.c.xid, swept_events.c.position).with_for_update(read=True)
        mine = select(relay_cursors.c.xid, relay_cursors.c.position).where(relay_cursors.c.name == self._name)
        with translated_errors():
            await self._connection.execute(
                insert(relay_cursors).from_select(columns, earliest).on_conflict_do_nothing()
            )
        (row,) = await self._read(mine)
        return EventPosition(row.xid, row.position)

    async def page(self, after: EventPosition) -> EventPage:
        """Return the next events; raises EventPositionExpired."""
        return await self._log.page(after)

    async def advance(self, place: EventPosition) -> None:
        """Store that everything up to this place is published."""
        values = {"xid": place.xid, "position": place.position, "update_time": func.now()}
        statement = insert(relay_cursors).values(name=self._name, **values)
        with translated_errors():
            await self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    async def _read(self, statement: Select[Any], values: Mapping[str, object] | None = None) -> Sequence[Row[Any]]:
        with translated_errors():
            rows: Sequence[Row[Any]] = (await self._connection.execute(statement, values)).all()
            return rows


@asynccontextmanager
async def active_relay(engine: AsyncEngine, name: str) -> AsyncIterator[RelayLog]:
    """Wait until no other relay of this name is active, and be it until the block ends; raises StoreError."""
    lock = select(func.pg_try_advisory_lock(func.hashtextextended(f"commerce relay {name}", 0)))
    with translated_errors():
        connection = await engine.execution_options(isolation_level="AUTOCOMMIT").connect()
    try:
        while True:
            with translated_errors():
                if await connection.scalar(lock):
                    break
            await asyncio.sleep(STANDBY_SECONDS)
        yield RelayLog(connection, name)
    finally:
        # The lock ends with the connection, which is not to go back to the pool.
        await connection.invalidate()
        await connection.close()
