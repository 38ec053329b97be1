"""Delete expired request ids, events and attempts to sign in, in small batches that do not block calls."""

from datetime import timedelta
from itertools import takewhile

from sqlalchemy import Integer, Interval, Tuple, bindparam, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.application.ports.events import EventPosition
from service.db.errors import translated_errors
from service.db.reads.event_columns import HORIZON
from service.db.tables import events, relay_cursors, request_ids, sign_in_attempts, swept_events

# How long a stored response can be replayed under its request id (AIP-155). How long events are stored is a setting:
# `service.config.GcSettings.event_retention_days`.
REQUEST_ID_RETENTION = timedelta(hours=24)
# The maximum number of rows that one transaction deletes.
BATCH = 1000

_request_key = (request_ids.c.caller, request_ids.c.method, request_ids.c.request_id)
# SKIP LOCKED: several processes share the work instead of waiting for each other.
_expired = (
    select(*_request_key)
    .where(request_ids.c.create_time < func.now() - bindparam("retention", type_=Interval()))
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)
DELETE_REQUEST_IDS = delete(request_ids).where(tuple_(*_request_key).in_(_expired))

# In the order of the primary key, each batch from where the last one ended: there is no index of times, because every
# attempt would have to change it.
_forgotten = (
    select(sign_in_attempts.c.slot)
    .where(
        sign_in_attempts.c.slot > bindparam("after", type_=Integer),
        sign_in_attempts.c.expire_time < func.now(),
    )
    .order_by(sign_in_attempts.c.slot)
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)
DELETE_SIGN_IN_ATTEMPTS = (
    delete(sign_in_attempts).where(sign_in_attempts.c.slot.in_(_forgotten)).returning(sign_in_attempts.c.slot)
)

# Locked, so that only one process deletes events at a time (any other returns immediately), and so that no new relay
# can begin at an event that this transaction deletes.
DELETED_UP_TO = select(swept_events.c.xid, swept_events.c.position).with_for_update(skip_locked=True)
RELAYS = select(relay_cursors.c.xid, relay_cursors.c.position)


def _position(name: str) -> Tuple:
    keys = (events.c.xid, events.c.position)
    return tuple_(*(bindparam(f"{name}_{key.name}", type_=key.type) for key in keys))


_is_old = (events.c.create_time < func.now() - bindparam("retention", type_=Interval())).label("is_old")
_event_position = tuple_(events.c.xid, events.c.position)
_is_not_deleted = _event_position > _position("deleted")
NEXT_EVENTS = (
    select(events.c.xid, events.c.position, _is_old)
    # Only below the oldest running transaction: events that it commits later would sort before events deleted now.
    .where(_is_not_deleted, events.c.xid < HORIZON)
    .order_by(events.c.xid, events.c.position)
    .limit(BATCH)
)
DELETE_EVENTS = delete(events).where(_is_not_deleted, _event_position <= _position("last"))
ADVANCE_DELETED_UP_TO = update(swept_events).values(
    {name: bindparam(f"last_{name}", type_=swept_events.c[name].type) for name in ("xid", "position")}
)


async def delete_expired_request_ids(engine: AsyncEngine) -> int:
    """Delete expired request ids, with the stored responses, and return the number deleted; raises StoreError."""
    deleted = 0
    while True:
        with translated_errors():
            async with engine.begin() as connection:
                result = await connection.execute(DELETE_REQUEST_IDS, {"retention": REQUEST_ID_RETENTION})
        deleted += result.rowcount
        if result.rowcount < BATCH:
            return deleted


async def delete_old_sign_in_attempts(engine: AsyncEngine) -> int:
    """Delete attempts to sign in that no longer count, and return the number of rows deleted; raises StoreError."""
    deleted, after = 0, -1
    while True:
        with translated_errors():
            async with engine.begin() as connection:
                slots = (await connection.scalars(DELETE_SIGN_IN_ATTEMPTS, {"after": after})).all()
        deleted += len(slots)
        if len(slots) < BATCH:
            return deleted
        after = max(slots)


async def delete_expired_events(engine: AsyncEngine, older_than: timedelta) -> int:
    """Delete old events and return the number deleted; raises StoreError.

    Events are deleted in the order of the event log, up to the first one that is younger or that a relay has not
    published yet. The position of the last deleted event is stored in the same transaction, so a reader detects that
    events after its position are gone, instead of skipping them silently.
    """
    deleted = 0
    while True:
        with translated_errors():
            async with engine.begin() as connection:
                count = await _delete_batch_of_events(connection, older_than)
        deleted += count
        if count < BATCH:
            return deleted


async def _delete_batch_of_events(connection: AsyncConnection, older_than: timedelta) -> int:
    if (mark := (await connection.execute(DELETED_UP_TO)).first()) is None:
        return 0
    after = _values("deleted", EventPosition(*mark))
    published = [EventPosition(*relay) for relay in await connection.execute(RELAYS)]
    found = (await connection.execute(NEXT_EVENTS, {**after, "retention": older_than})).all()
    old = [EventPosition(row.xid, row.position) for row in takewhile(lambda row: row.is_old, found)]
    expired = [position for position in old if not published or position <= min(published)]
    if expired:
        last = _values("last", expired[-1])
        await connection.execute(DELETE_EVENTS, after | last)
        await connection.execute(ADVANCE_DELETED_UP_TO, last)
    return len(expired)


def _values(name: str, position: EventPosition) -> dict[str, object]:
    return {f"{name}_xid": position.xid, f"{name}_position": position.position}
