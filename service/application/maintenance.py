"""What nobody calls for: holds that expire, deleted users whose time to be brought back is over, messages to be kept.

Each order and each user is a unit of work of its own, so that nothing is locked for longer than one of them takes, and
so is each batch of messages.
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
    """Give back credit that was set aside for orders not confirmed in time, and return the number of these orders."""
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
    """Erase users whose `purge_time` is over; return how many, and how many are kept with open orders or credit."""
    purged = kept = 0
    for user_id in await queries.users_to_purge(now):
        try:
            async with unit_of_work() as uow:
                await purge_user(uow, user_id, "", now, force=False)
                await uow.commit(b"")
                purged += 1
        except UserInUse:
            kept += 1
        except NotFound:
            # Another sweeper was faster.
            continue
    return purged, kept


async def backfill_encoded_users(unit_of_work: OpenUnitOfWork) -> int:
    """Keep messages of the users that have none: those from before there were any, or that were changed by hand.

    Returns of how many.
    """
    kept = 0
    while True:
        async with unit_of_work() as uow:
            count = await uow.users.encode_missing(BATCH)
            await uow.commit(b"")
        if not count:
            return kept
        kept += count
