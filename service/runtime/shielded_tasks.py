"""Tasks that run to completion even if the coroutines that wait for them are cancelled.

Cancelling a statement costs a connection, and a COMMIT that is cancelled has usually happened. So statements run in
separate tasks, which PostgreSQL's time limits end. Only a process that stops cancels them.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from service.observability.logs import where_raised
from service.runtime.deadline import no_deadline

T = TypeVar("T")

log = structlog.get_logger()


class ShieldedTasks:
    """Runs coroutines in tasks that the cancellation of a waiting coroutine does not reach; `drain` waits for all.

    Args:
        is_expected: returns whether an error is reported to clients. If nothing waits for a task any longer, any other
            error is logged.
    """

    def __init__(self, is_expected: Callable[[BaseException], bool]) -> None:
        self._is_expected = is_expected
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task; `result` waits for it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a task and return its result.

        This does the same as `start` and `result`, and takes one event loop iteration less.
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
        except Exception as error:  # noqa: BLE001 - raised in `run`
            if result.cancelled():
                self._log_unless_expected(error)
            else:
                result.set_exception(error)
        else:
            if not result.cancelled():
                result.set_result(value)

    async def result(
        self,
        task: asyncio.Task[T],
        *,
        timeout_seconds: float | None = None,
        timeout_error: type[Exception] = TimeoutError,
    ) -> T:
        """Return the result of a task, or raise `timeout_error` after `timeout_seconds`; the task then continues."""
        try:
            await asyncio.wait({task}, timeout=timeout_seconds)
        except asyncio.CancelledError:
            task.add_done_callback(self._log_abandoned_failure)
            raise
        if not task.done():
            task.add_done_callback(self._log_abandoned_failure)
            raise timeout_error
        return task.result()

    def abandon(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task that `start` started; its result is no longer wanted, and an unexpected error is logged."""
        task.cancel()
        task.add_done_callback(self._log_abandoned_failure)

    async def drain(self, time_left: Callable[[], float] = no_deadline) -> int:
        """Wait until all tasks have ended, including those that no coroutine waits for any longer.

        After that, the database connections can be closed.

        Args:
            time_left: the seconds for which the tasks may go on; the rest is cancelled when none are left.

        Returns:
            How many tasks were cancelled.
        """
        # In a loop, because a task can start others.
        while self._running and (seconds := time_left()) > 0:
            await asyncio.wait(self._running, timeout=None if seconds == math.inf else seconds)
        cancelled = len(self._running)
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running)
        return cancelled

    def _log_abandoned_failure(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log_unless_expected(error)

    def _log_unless_expected(self, error: BaseException) -> None:
        if not self._is_expected(error):
            log.error("internal error after the caller stopped waiting", **where_raised(error))
