"""The retry policy of calls, and the tasks that finish database work after a client has disconnected."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from service.application.ports.errors import Contention, DatabaseUnavailable, OutcomeUnknown, Overloaded, StoreError
from service.application.ports.unit_of_work import TimeLeft
from service.rpc.status import status_of
from service.runtime.retry import Backoff
from service.runtime.shielded_tasks import ShieldedTasks

MAX_ATTEMPTS = 3
# Pauses of up to 0.08 s and 0.32 s: long enough for the other transaction of a deadlock to end.
BACKOFF = Backoff(base=0.08, factor=4)

T = TypeVar("T")

log = structlog.get_logger()


def shielded_tasks() -> ShieldedTasks:
    """Return shielded tasks that do not log errors with a status, because clients expect those errors."""
    return ShieldedTasks(lambda error: status_of(error) is not None)


async def retried(attempt: Callable[[], Awaitable[T]], deadline: TimeLeft, *, outcome_known_by_repeating: bool) -> T:
    """Return the result of `attempt`, calling it up to MAX_ATTEMPTS times while its error allows a retry.

    Args:
        attempt: does all of the work from the start.
        deadline: no attempt begins after it.
        outcome_known_by_repeating: whether an attempt with an unknown outcome can be repeated safely, so that the
            repetition tells the outcome.

    Raises:
        OutcomeUnknown: an attempt may have been committed, and no later attempt told the outcome.
        StoreError, Overloaded: any other failure of the last attempt.
    """
    may_be_committed = False
    number = 0
    while True:
        number += 1
        try:
            return await attempt()
        except (StoreError, Overloaded) as error:
            may_be_committed |= isinstance(error, OutcomeUnknown)
            retryable = isinstance(error, Contention | DatabaseUnavailable) or (
                isinstance(error, OutcomeUnknown) and outcome_known_by_repeating
            )
            pause = BACKOFF.pause(number)
            if not retryable or number == MAX_ATTEMPTS or deadline() <= pause:
                if may_be_committed:
                    raise OutcomeUnknown from error
                raise
            log.info("retrying", attempt=number, reason=_reason(error), pause_seconds=round(pause, 3))
            await asyncio.sleep(pause)


def _reason(error: Exception) -> str:
    status = status_of(error)
    return status.message if status else ""
