"""How work on the database is run: anew when the database asks for it, and to its end whoever waits for it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from service.application.ports import Contention, DatabaseUnavailable, OutcomeUnknown, StoreError, TimeLeft
from service.logs import where_raised
from service.rpc.status import status_of

MAX_ATTEMPTS = 3

T = TypeVar("T")

log = structlog.get_logger()


class Deadline:
    """Seconds left until a point in time (`service.application.ports.TimeLeft`)."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def __call__(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()


class Detached:
    """Work that a caller's cancellation does not reach.

    Cancelling a statement costs a connection, and a cancelled COMMIT has usually happened. The work ends by itself:
    PostgreSQL limits its statements.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work, to be waited for with `result`."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def result(
        self, task: asyncio.Task[T], *, patience: float | None = None, late: type[StoreError] = OutcomeUnknown
    ) -> T:
        """Return what the work returns, or raise `late` after `patience` seconds; the work goes on then."""
        try:
            await asyncio.wait({task}, timeout=patience)
        except asyncio.CancelledError:
            task.add_done_callback(_log_unseen_failure)
            raise
        if not task.done():
            task.add_done_callback(_log_unseen_failure)
            raise late
        return task.result()

    async def drain(self) -> None:
        """Wait until all work has ended, also that which nobody waits for; then the database may be left."""
        while self._running:
            await asyncio.wait(self._running)


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


def _log_unseen_failure(task: asyncio.Task[Any]) -> None:
    """Log what nobody waits for any more, unless it is an answer that a caller could have been given."""
    error = task.exception()
    if error is not None and status_of(error) is None:
        log.error("internal error after the caller had gone", **where_raised(error))
