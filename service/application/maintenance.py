"""Maintenance: expire credit holds, purge users, and backfill encoded messages and search words.

Each order, each user and each batch of a backfill is a unit of work, so that locks are held for a short time, and so
that one that fails does not stop the others.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from service.application.credit import expire_hold
from service.application.ports.errors import Contention, DatabaseUnavailable
from service.application.ports.queries import MaintenanceQueries
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import purge_user
from service.domain.errors import NotFound, UserInUse

OpenUnitOfWork = Callable[[], AbstractAsyncContextManager[UnitOfWork]]
# Takes what failed, for example `orders/<id>`, and the error.
Failed = Callable[[str, Exception], None]
BATCH = 500
_ATTEMPTS = 3

T = TypeVar("T")


async def by_itself(name: str, work: Callable[[], Awaitable[T]], failed: Failed, otherwise: T) -> T:
    """Return the result of one part of the maintenance; if it fails, report that and return `otherwise`.

    Raises:
        DatabaseUnavailable: every other part would fail too.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await work()
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the other parts are done in any case
            if isinstance(error, Contention) and attempt < _ATTEMPTS:
                continue
            failed(name, error)
            return otherwise


async def expire_holds(unit_of_work: OpenUnitOfWork, queries: MaintenanceQueries, now: datetime, failed: Failed) -> int:
    """Give back the credit held for orders that were not confirmed in time, and return the number of these orders."""
    expired = 0
    for order_id in await queries.orders_with_expired_holds(now):

        async def expire(order_id: UUID = order_id) -> bool:
            try:
                async with unit_of_work() as uow:
                    order = await uow.orders.get_for_update(order_id)
                    # It may have been confirmed or cancelled since.
                    expired = await expire_hold(uow, order, now)
                    await uow.commit(b"")
            except NotFound:
                # Its user has been purged since.
                return False
            return expired

        expired += await by_itself(f"orders/{order_id}", expire, failed, otherwise=False)
    return expired


async def purge_deleted_users(
    unit_of_work: OpenUnitOfWork, queries: MaintenanceQueries, now: datetime, failed: Failed
) -> tuple[int, int]:
    """Purge users whose `purge_time` has passed.

    Returns the number purged, and the number that stay because they have open orders or credit.
    """
    purged = in_use = 0
    for user_id in await queries.users_to_purge(now):

        async def purge(user_id: UUID = user_id) -> tuple[int, int]:
            try:
                async with unit_of_work() as uow:
                    await purge_user(uow, user_id, "", now, force=False)
                    await uow.commit(b"")
            except UserInUse:
                return 0, 1
            except NotFound:
                # Another maintenance process has purged this user.
                return 0, 0
            return 1, 0

        counts = await by_itself(f"users/{user_id}", purge, failed, otherwise=(0, 0))
        purged, in_use = purged + counts[0], in_use + counts[1]
    return purged, in_use


async def purge_again(unit_of_work: OpenUnitOfWork, user_ids: Sequence[UUID], now: datetime, failed: Failed) -> int:
    """Purge those of these users that a restored backup has brought back, and return their number.

    A user is purged also if it has open orders or credit, because it was purged before.
    """
    purged = 0
    for user_id in user_ids:

        async def purge(user_id: UUID = user_id) -> bool:
            try:
                async with unit_of_work() as uow:
                    await purge_user(uow, user_id, "", now, force=True)
                    await uow.commit(b"")
            except NotFound:
                return False
            return True

        purged += await by_itself(f"users/{user_id}", purge, failed, otherwise=False)
    return purged


async def backfill_encoded_users(unit_of_work: OpenUnitOfWork) -> int:
    """Store the encoded messages of users that have none, and return the number updated.

    These are users written by a release that did not store encoded messages, or changed outside this service.
    """
    return await _in_batches(unit_of_work, lambda uow: uow.users.encode_missing(BATCH))


async def backfill_search_words(unit_of_work: OpenUnitOfWork) -> int:
    """Write the words of users and notes whose words a trigger wrote, and return the number updated.

    These were written by a release that left the words to triggers, or outside this service, and are not in ASCII.
    """
    users = await _in_batches(unit_of_work, lambda uow: uow.users.write_words(BATCH))
    return users + await _in_batches(unit_of_work, lambda uow: uow.notes.write_words(BATCH))


async def _in_batches(unit_of_work: OpenUnitOfWork, update: Callable[[UnitOfWork], Awaitable[int]]) -> int:
    """Return the number of rows updated, by as many units of work as there are batches."""
    updated = 0
    while True:
        async with unit_of_work() as uow:
            count = await update(uow)
            await uow.commit(b"")
        if not count:
            return updated
        updated += count
