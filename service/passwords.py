"""Password hashing with argon2id, in a few threads: interactive callers first, with a bounded queue.

On the event loop, hashing one password would block all other calls; more threads would only cost memory. The parameters
follow the OWASP Password Storage Cheat Sheet.
"""

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.application.ports.unit_of_work import TimeLeft
from service.config import PasswordSettings
from service.domain.text import composed
from service.observability.metrics.histogram import SHORT_SECONDS, Histogram
from service.runtime.deadline import no_deadline

T = TypeVar("T")
# Where threads have a nice value each (Linux), that of the threads is higher by this much. A hash takes a processor for
# many milliseconds; while all processors hash, other calls would wait for the scheduler's next turn each time.
_NICE_INCREMENT = 10


class Argon2Passwords:
    """Hashes and verifies passwords (`service.application.ports.passwords.Passwords`); a process needs only one.

    Args:
        settings: the parameters of argon2id, the number of threads and the length of the queue.
        time_left: returns how long the running call may still take; asked before each wait for a thread.

    Attributes:
        turns: who waits for a thread.
        seconds: how long threads have taken, each time.
    """

    def __init__(self, settings: PasswordSettings, time_left: Callable[[], TimeLeft] = lambda: no_deadline) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._executor = ThreadPoolExecutor(
            settings.password_threads, thread_name_prefix="password", initializer=_lower_priority
        )
        self.turns = Turns(settings.password_threads, settings.password_queue_size)
        self._time_left = time_left
        self.seconds = Histogram(SHORT_SECONDS)
        self._running: set[asyncio.Future[Any]] = set()
        # Verified when the user does not exist, so that the response takes as long as for a wrong password.
        self._dummy_hash = self._hasher.hash("no user has this password")

    @property
    def running(self) -> int:
        """How many passwords threads are hashing."""
        return len(self._running)

    async def hash(self, password: str, *, background: bool = False) -> str:
        """Return a salted hash of the password in the form NFKC; raises DeadlineExceeded and Overloaded."""
        normal = composed(password)
        return await self._run(lambda: self._hasher.hash(normal), background=background)

    async def verify(self, password: str, password_hash: str | None, *, as_typed: bool = False) -> bool:
        """Return whether the password has this hash; for None, False after an equally long time.

        Raises DeadlineExceeded and Overloaded.
        """
        form = password if as_typed else composed(password)

        def verify() -> bool:
            try:
                self._hasher.verify(password_hash or self._dummy_hash, form)
            except VerifyMismatchError:
                return False
            return password_hash is not None

        return await self._run(verify, background=False)

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with parameters other than the current settings."""
        return self._hasher.check_needs_rehash(password_hash)

    async def drain(self) -> None:
        """Wait until no thread hashes a password, such as that of a caller that has gone."""
        while self._running:
            await asyncio.wait(self._running)

    def close(self) -> None:
        """End the threads, without waiting for the passwords that they are hashing."""
        self._executor.shutdown(wait=False)

    async def _run(self, work: Callable[[], T], *, background: bool) -> T:
        await self.turns.take(self._time_left(), background=background)
        began = time.perf_counter()
        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._running.add(running)

        def end(ended: asyncio.Future[T]) -> None:
            self._running.discard(ended)
            self.seconds.observe(time.perf_counter() - began)
            self.turns.give_back(background=background)

        running.add_done_callback(end)
        # A thread cannot be interrupted, so it stays taken until it has hashed the password, although the caller may
        # have gone. Otherwise the passwords of callers that have gone would queue up in the executor.
        return await asyncio.shield(running)


def _lower_priority() -> None:
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE_INCREMENT)


# What a caller waits for, and how long.
_Waiting = tuple[asyncio.Future[None], TimeLeft]


class Turns:
    """Decides whose password is hashed next.

    Background work gets a thread only while no interactive caller waits, and never more than half of them (of one
    thread: that one). So an interactive caller waits for at most one hash of an import. Background work itself waits as
    long as it takes: it is as many callers as there are imports.

    Args:
        size: the number of threads.
        queue_size: how many interactive callers may wait.

    Attributes:
        waits: how long interactive callers have waited for a thread.
    """

    def __init__(self, size: int, queue_size: int) -> None:
        self.waits = Histogram(SHORT_SECONDS)
        self._free = size
        self._free_for_background = max(1, size // 2)
        self._queue_size = queue_size
        self._interactive: deque[_Waiting] = deque()
        self._background: deque[_Waiting] = deque()

    @property
    def waiting(self) -> dict[str, int]:
        """How many wait for a thread: interactive callers, and background work."""
        queues = {"interactive": self._interactive, "background": self._background}
        return {name: sum(not turn.done() for turn, _ in queue) for name, queue in queues.items()}

    async def take(self, time_left: TimeLeft, *, background: bool) -> None:
        """Wait for a thread, and `give_back` it later.

        Args:
            time_left: how long the caller waits. It gets no thread without time left.
            background: whether interactive callers come first.

        Raises:
            DeadlineExceeded: no time is left.
            Overloaded: too many interactive callers wait.
        """
        queue = self._background if background else self._interactive
        if not background and not self._free:
            self._require_room()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (turn, time_left)
        queue.append(waiting)
        began = time.perf_counter()
        self._start_next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # Unless `_start_next` or `_require_room` has passed over it already.
                if waiting in queue:
                    queue.remove(waiting)
            elif turn.exception() is None:
                # Its turn came at the same moment.
                self.give_back(background=background)
            raise
        finally:
            if not background:
                self.waits.observe(time.perf_counter() - began)

    def give_back(self, *, background: bool) -> None:
        """Let the next caller have the thread."""
        self._free += 1
        self._free_for_background += background
        self._start_next()

    def _start_next(self) -> None:
        while self._free and (queue := self._next_queue()) is not None:
            turn, time_left = queue.popleft()
            if _is_late(turn, time_left):
                continue
            self._free -= 1
            self._free_for_background -= queue is self._background
            turn.set_result(None)

    def _next_queue(self) -> deque[_Waiting] | None:
        if self._interactive:
            return self._interactive
        return self._background if self._background and self._free_for_background else None

    def _require_room(self) -> None:
        if len(self._interactive) < self._queue_size:
            return
        # Callers that have gone, or have no time left, do not take places in the queue.
        in_time = [waiting for waiting in self._interactive if not _is_late(*waiting)]
        self._interactive.clear()
        self._interactive.extend(in_time)
        if len(in_time) >= self._queue_size:
            raise Overloaded("passwords")


def _is_late(turn: asyncio.Future[None], time_left: TimeLeft) -> bool:
    """Return whether a caller has gone, or has no time left; the latter gets DeadlineExceeded."""
    if not turn.done() and time_left() <= 0:
        turn.set_exception(DeadlineExceeded())
    return turn.done()
