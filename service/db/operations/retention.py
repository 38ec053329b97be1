"""Sweeps what is kept for a time only, in small batches that hold no caller up."""

from datetime import timedelta
from itertools import takewhile

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.application.ports.events import EventPosition
from service.db.errors import translated_errors
from service.db.tables import events, relay_cursors, request_ids, swept_events

# How long an answer can be repeated (AIP-155).
REQUEST_ID_RETENTION = timedelta(hours=24)
BATCH = 1000


async def delete_expired_request_ids(engine: AsyncEngine) -> int:
    """Delete expired answers and return their number; raises StoreError."""
    key = tuple_(request_ids.c.caller, request_ids.c.method, request_ids.c.request_id)
    # SKIP LOCKED: several sweepers share the work instead of waiting for each other.
    expired = (
        select(request_ids.c.caller, request_ids.c.method, request_ids.c.request_id)
        .where(request_ids.c.create_time < func.now() - REQUEST_ID_RETENTION)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    swept = 0
    while True:
        with translated_errors():
            async with engine.begin() as connection:
                count = (await connection.execute(delete(request_ids).where(key.in_(expired)))).rowcount
        swept += count
        if count < BATCH:
            return swept


async def delete_expired_events(engine: AsyncEngine, older_than: timedelta) -> int:
    """Delete old events, and return their number; raises StoreError.

    They go in the order in which they are read, up to the first one that is younger or that a relay has yet to publish.
    How far that was is stored in the same transaction, so every reader learns of a gap and none reads across it.
    """
    swept = 0
    while True:
        with translated_errors():
            async with engine.begin() as connection:
                count = await _sweep_batch_of_events(connection, older_than)
        swept += count
        if count < BATCH:
            return swept


async def _sweep_batch_of_events(connection: AsyncConnection, older_than: timedelta) -> int:
    # Locked: what another sweeper is at is left to it, and a new relay cannot begin where this one deletes.
    mark = select(swept_events.c.xid, swept_events.c.position).with_for_update(skip_locked=True)
    if (swept := (await connection.execute(mark)).first()) is None:
        return 0
    relays = (await connection.execute(select(relay_cursors.c.xid, relay_cursors.c.position))).all()
    end = min((EventPosition(*relay) for relay in relays), default=None)

    place, keys = tuple_(events.c.xid, events.c.position), (events.c.xid.type, events.c.position.type)
    after_mark = place > tuple_(*swept, types=keys)
    is_old = (events.c.create_time < func.now() - older_than).label("is_old")
    batch = (
        select(events.c.xid, events.c.position, is_old)
        # What an older transaction commits later would come before what is deleted now.
        .where(after_mark, events.c.xid < func.pg_snapshot_xmin(func.pg_current_snapshot()))
        .order_by(events.c.xid, events.c.position)
        .limit(BATCH)
    )
    found = (await connection.execute(batch)).all()
    places = [EventPosition(*row[:2]) for row in takewhile(lambda row: row.is_old, found)]
    places = [place for place in places if end is None or place <= end]
    if places:
        await connection.execute(delete(events).where(after_mark, place <= tuple_(*places[-1], types=keys)))
        await connection.execute(update(swept_events).values(places[-1]._asdict()))
    return len(places)
