"""Work that a caller's cancellation does not reach.

Cancelling a statement costs a connection, and a cancelled COMMIT has usually happened. So statements run in tasks of
their own, which end by themselves: PostgreSQL limits them.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from service.observability.logs import where_raised

T = TypeVar("T")

log = structlog.get_logger()


class ShieldedTasks:
    """Runs such work, and knows what of it still runs.

    Args:
        is_answer: whether a failure is one that callers are told of; any other is logged where no caller is left.
    """

    def __init__(self, is_answer: Callable[[BaseException], bool]) -> None:
        self._is_answer = is_answer
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work, to be waited for with `result`."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what work returns that begins now.

        As to start it and to wait for its result, with a turn of the event loop less.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.start(self._deliver(work, result))
        return await result

    async def _deliver(self, work: Coroutine[Any, Any, T], result: asyncio.Future[T]) -> None:
        try:
            value = await work
        except asyncio.CancelledError:
            result.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised in the caller
            if result.cancelled():
                self._log_unless_answer(error)
            else:
                result.set_exception(error)
        else:
            if not result.cancelled():
                result.set_result(value)

    async def result(
        self, task: asyncio.Task[T], *, patience: float | None = None, late: type[Exception] = TimeoutError
    ) -> T:
        """Return what the work returns, or raise `late` after `patience` seconds; the work goes on then."""
        try:
            await asyncio.wait({task}, timeout=patience)
        except asyncio.CancelledError:
            task.add_done_callback(self._log_unseen_failure)
            raise
        if not task.done():
            task.add_done_callback(self._log_unseen_failure)
            raise late
        return task.result()

    async def drain(self) -> None:
        """Wait until all work has ended, also that which nobody waits for; then the database may be left."""
        while self._running:
            await asyncio.wait(self._running)

    def _log_unseen_failure(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log_unless_answer(error)

    def _log_unless_answer(self, error: BaseException) -> None:
        if not self._is_answer(error):
            log.error("internal error after the caller had gone", **where_raised(error))
