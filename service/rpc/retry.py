"""How work on the database is run: anew when the database asks for it, and to its end whoever waits for it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from service.application.ports.errors import Contention, DatabaseUnavailable, OutcomeUnknown, StoreError
from service.application.ports.unit_of_work import TimeLeft
from service.rpc.status import status_of
from service.runtime.shielded_tasks import ShieldedTasks

MAX_ATTEMPTS = 3

T = TypeVar("T")

log = structlog.get_logger()


def shielded_tasks() -> ShieldedTasks:
    """Return what runs work whose failures, where they have a status, are answers."""
    return ShieldedTasks(lambda error: status_of(error) is not None)


async def retried(attempt: Callable[[], Awaitable[T]], deadline: TimeLeft, *, outcome_known_by_repeating: bool) -> T:
    """Return the result of the first attempt that the database lets through.

    Raises:
        StoreError: the last attempt's; OutcomeUnknown once an earlier one may have been committed.
    """
    may_have_happened = False
    number = 0
    while True:
        number += 1
        try:
            return await attempt()
        except StoreError as error:
            may_have_happened |= isinstance(error, OutcomeUnknown)
            worth_another = isinstance(error, Contention | DatabaseUnavailable) or (
                isinstance(error, OutcomeUnknown) and outcome_known_by_repeating
            )
            pause = random.uniform(0.5, 1) * 0.02 * 4**number  # noqa: S311 - only spreads retries
            if not worth_another or number == MAX_ATTEMPTS or deadline() <= pause:
                if may_have_happened:
                    raise OutcomeUnknown from error
                raise
            log.info("attempt failed", attempt=number, reason=_reason(error), pause_seconds=round(pause, 3))
            await asyncio.sleep(pause)


def _reason(error: StoreError) -> str:
    status = status_of(error)
    return status.message if status else ""
