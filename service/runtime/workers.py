"""Keep several worker processes running: start them, replace those that end, roll them, and drain all of them.

The parent does nothing else. It needs the default event loop of asyncio, and reaps every child process by itself: also
the orphans that the kernel hands to process 1 of a container.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog

from service.runtime.errors import OperatorError
from service.runtime.retry import Backoff
from service.runtime.stop_signals import StopSignals
from service.runtime.worker import StartFailed, Worker, describe_end

# A worker that ends sooner than this after its start counts towards a crash loop,
_STABLE_SECONDS = 60.0
# which so many ends of it in a row are.
_CRASH_LOOP = 5
# Before a replacement is started, after each end in a row.
_BACKOFF = Backoff(0.1, cap=5.0)
# How a drained worker ends: SIGTERM ends one that is still being loaded.
_IN_ORDER = (0, -signal.SIGTERM)
# How much longer than a worker needs to drain the parent waits for it.
_MARGIN_SECONDS = 1.0
# How often workers report. What a worker has counted since then is lost if it is killed.
_REPORT_SECONDS = 1.0

log = structlog.get_logger()


class Reports(Protocol):
    """What takes the reports of workers."""

    def started(self, pid: int, worker: int) -> None:
        """Note that a worker with a number was started, as the process with this id."""

    def received(self, pid: int, data: bytes) -> None:
        """Take a report of a worker."""

    def ended(self, pid: int) -> None:
        """Note that a worker has ended; its last report has been received."""


class WorkersFailed(OperatorError):
    """The workers cannot be kept running."""


class _Place:
    """The place of a worker with a number, and the worker that has it now.

    Attributes:
        changing: held while the worker is replaced.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.changing = asyncio.Lock()
        # How many workers in a row have ended soon after their start.
        self.crashes = 0


class Workers:
    """A number of workers: `run` them.

    Args:
        count: how many.
        start: starts the worker with a number, from 1; raises OSError if no process can be started.
        drain_seconds: the most that a worker takes from SIGTERM to its end.
        reports: takes what workers report every second; None asks them for no reports.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int], Worker],
        *,
        drain_seconds: float,
        reports: Reports | None = None,
    ) -> None:
        self._reports = reports
        self._count = count
        self._start_process = start
        self._drain_seconds = drain_seconds + _MARGIN_SECONDS
        # By process id: all that have not ended.
        self._running: dict[int, Worker] = {}
        self._places: list[_Place] = []
        self._roll_wanted = asyncio.Event()

    async def run(self, on_ready: Callable[[list[int]], None], signals: StopSignals) -> None:
        """Run the workers until SIGTERM or SIGINT, then drain all of them together; SIGHUP rolls them.

        Args:
            on_ready: called with their process ids when all workers are ready for the first time.
            signals: those that stop this process. After the second one, the workers are killed.

        Raises:
            WorkersFailed: a worker could not start, or ended again and again, or did not end in order.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, self._roll_wanted.set)
        try:
            await signals.unless_stopped(self._keep_all(on_ready))
        except BaseException:
            # The other workers have calls to finish.
            await self._stop(signals)
            raise
        if failed := await self._stop(signals):
            raise WorkersFailed(f"not all workers ended in order: {', '.join(failed)}")

    async def _keep_all(self, on_ready: Callable[[list[int]], None]) -> None:
        try:
            workers = [self._start(number + 1) for number in range(self._count)]
        except OSError as error:
            raise WorkersFailed(f"no worker can be started: {error.strerror}") from error
        starting = [asyncio.create_task(worker.started()) for worker in workers]
        try:
            await asyncio.gather(*starting)
            for worker in workers:
                self._take_reports(worker)
        except StartFailed as error:
            raise WorkersFailed(str(error) if error.is_named else f"a worker cannot start: {error}") from error
        finally:
            for task in starting:
                task.cancel()
        self._places = [_Place(worker) for worker in workers]
        on_ready([worker.pid for worker in workers])
        tasks = [asyncio.create_task(self._keep(place)) for place in self._places]
        tasks.append(asyncio.create_task(self._roll_when_wanted()))
        if self._reports:
            tasks.append(asyncio.create_task(self._ask_for_reports()))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, number: int) -> Worker:
        worker = self._start_process(number)
        self._running[worker.pid] = worker
        return worker

    async def _keep(self, place: _Place) -> None:
        """Replace the worker of a place whenever it has ended; raises WorkersFailed."""
        while True:
            worker = place.worker
            status = await asyncio.shield(worker.ended)
            async with place.changing:
                # Unless a roll has replaced it.
                if place.worker is worker:
                    log.error("worker ended", worker=worker.number, pid=worker.pid, reason=describe_end(status))
                    await self._replace(place, describe_end(status))

    async def _replace(self, place: _Place, reason: str) -> None:
        old, failures = place.worker, 0
        place.crashes = place.crashes + 1 if old.lifetime < _STABLE_SECONDS else 1
        while True:
            if place.crashes >= _CRASH_LOOP:
                raise WorkersFailed(
                    f"worker {old.number} ended {_CRASH_LOOP} times in a row, each time within {_STABLE_SECONDS:.0f} s"
                    f" of its start; the last time, {reason}"
                )
            await asyncio.sleep(_BACKOFF.pause(place.crashes + failures))
            try:
                place.worker = await self._ready_worker(old.number)
            except StartFailed as error:
                reason = str(error)
                log.warning("worker not started", worker=old.number, reason=reason)
                if not error.is_named:
                    place.crashes += 1
                elif not self._any_serves():
                    raise WorkersFailed(reason) from error
                else:
                    # For example, the database is down. The other workers go on, as a single process would.
                    failures += 1
            else:
                log.info("worker replaced", worker=old.number, pid=place.worker.pid)
                return

    async def _ready_worker(self, number: int) -> Worker:
        """Return a new worker that is ready; raises StartFailed."""
        try:
            worker = self._start(number)
        except OSError as error:
            # For example, there is no memory.
            raise StartFailed(error.strerror or "the system cannot start it", is_named=True) from error
        await worker.started()
        self._take_reports(worker)
        return worker

    def _take_reports(self, worker: Worker) -> None:
        if reports := self._reports:
            reports.started(worker.pid, worker.number)
            worker.take_reports(partial(reports.received, worker.pid), partial(reports.ended, worker.pid))

    async def _ask_for_reports(self) -> None:
        while True:
            self.ask_for_reports()
            await asyncio.sleep(_REPORT_SECONDS)

    def ask_for_reports(self) -> None:
        """Ask all workers for a report."""
        for worker in self._running.values():
            worker.ask_for_report()

    def _any_serves(self) -> bool:
        return any(not place.worker.ended.done() for place in self._places)

    async def _roll_when_wanted(self) -> None:
        while True:
            await self._roll_wanted.wait()
            # A signal from now on asks for another roll after this one.
            self._roll_wanted.clear()
            await self._roll()

    async def _roll(self) -> None:
        """Replace the workers one after the other: a new one is ready before the old one drains."""
        log.info("rolling the workers")
        for place in self._places:
            async with place.changing:
                old = place.worker
                try:
                    place.worker = await self._ready_worker(old.number)
                except StartFailed as error:
                    self._log_failed_roll(old, error)
                    return
                place.crashes = 0
            log.info("worker replaced", worker=old.number, pid=place.worker.pid)
            await self._drain(old)
        log.info("rolled the workers")

    async def _drain(self, worker: Worker) -> None:
        """Drain a worker that has been replaced, and wait until it has ended."""
        worker.drain()
        await asyncio.wait({worker.ended}, timeout=self._drain_seconds)
        if not worker.ended.done():
            self._log_late_workers([worker])
            worker.kill()
        status = await asyncio.shield(worker.ended)
        if status not in _IN_ORDER:
            log.warning("worker ended", worker=worker.number, pid=worker.pid, reason=describe_end(status))

    async def _stop(self, signals: StopSignals) -> list[str]:
        """Drain all workers together, and return how each ended that did not end in order."""
        workers = list(self._running.values())
        # If they have never been ready together, the reason is told in one line.
        if self._places:
            log.info(
                "draining the workers",
                workers=len(workers),
                at_most_seconds=round(self._drain_seconds, 1),
                hint="a second signal stops immediately",
            )
        for worker in workers:
            worker.drain()
        try:
            async with asyncio.timeout(self._drain_seconds):
                if not await signals.unless_stopped_twice(self._until_ended()):
                    log.warning("second signal: stopping immediately")
        except TimeoutError:
            self._log_late_workers(self._running.values())
        for worker in list(self._running.values()):
            worker.kill()
        # The kernel has not ended them yet.
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._until_ended()
        if self._places:
            log.info("stopped")
        return [
            f"worker {worker.number}: {describe_end(worker.ended.result()) if worker.ended.done() else 'it runs'}"
            for worker in workers
            if not (worker.ended.done() and worker.ended.result() in _IN_ORDER)
        ]

    def _log_failed_roll(self, worker: Worker, error: StartFailed) -> None:
        log.error(
            "rolling has stopped, because a new worker cannot start; the other workers go on",
            worker=worker.number,
            reason=str(error),
        )

    def _log_late_workers(self, workers: Iterable[Worker]) -> None:
        # A worker ends itself in time, even if its event loop is stuck; but not if a debugger has stopped it.
        numbers = [worker.number for worker in workers]
        log.error("ending workers, because they did not end in time", workers=numbers)

    async def _until_ended(self) -> None:
        await asyncio.gather(*(asyncio.shield(worker.ended) for worker in self._running.values()))

    def _reap(self) -> None:
        """Reap all child processes that have ended: workers, and orphans that were left to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if worker := self._running.pop(pid, None):
                worker.on_end(os.waitstatus_to_exitcode(status))
