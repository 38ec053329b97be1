"""Periodic maintenance: expire credit holds, purge deleted users, and backfill encoded messages.

Each order, each user and each batch of messages is a unit of work, so that locks are held for a short time.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from service.application.credit import expire_hold
from service.application.ports.queries import MaintenanceQueries
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import purge_user
from service.domain.errors import NotFound, UserInUse

OpenUnitOfWork = Callable[[], AbstractAsyncContextManager[UnitOfWork]]
BATCH = 500


async def expire_holds(unit_of_work: OpenUnitOfWork, queries: MaintenanceQueries, now: datetime) -> int:
    """Give back the credit held for orders that were not confirmed in time, and return the number of these orders."""
    expired = 0
    for order_id in await queries.orders_with_expired_holds(now):
        async with unit_of_work() as uow:
            order = await uow.orders.get_for_update(order_id)
            # It may have been confirmed or cancelled since.
            expired += await expire_hold(uow, order, now)
            await uow.commit(b"")
    return expired


async def purge_deleted_users(
    unit_of_work: OpenUnitOfWork, queries: MaintenanceQueries, now: datetime
) -> tuple[int, int]:
    """Purge users whose `purge_time` has passed.

    Returns the number purged, and the number that stay because they have open orders or credit.
    """
    purged = in_use = 0
    for user_id in await queries.users_to_purge(now):
        try:
            async with unit_of_work() as uow:
                await purge_user(uow, user_id, "", now, force=False)
                await uow.commit(b"")
                purged += 1
        except UserInUse:
            in_use += 1
        except NotFound:
            # Another maintenance process has purged this user.
            continue
    return purged, in_use


async def backfill_encoded_users(unit_of_work: OpenUnitOfWork) -> int:
    """Store the encoded messages of users that have none, and return the number updated.

    These are users written by a release that did not store encoded messages, or changed outside this service.
    """
    updated = 0
    while True:
        async with unit_of_work() as uow:
            count = await uow.users.encode_missing(BATCH)
            await uow.commit(b"")
        if not count:
            return updated
        updated += count
