"""Slots: how many may use something at a time, such as the connections of a pool, and who waits for how long."""

import asyncio
import time
from collections import Counter, deque
from contextlib import suppress

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.application.ports.unit_of_work import TimeLeft
from service.observability.metrics.histogram import SHORT_SECONDS, Histogram

# One that waits for a slot gives up this long after its deadline, so that gRPC has ended the call by then.
_MOMENT_SECONDS = 0.05


class Slots:
    """A number of slots. A caller that wants one waits for its turn, but not beyond its own time, nor beyond `timeout`.

    Args:
        size: the number of slots.
        timeout: the maximum seconds to wait for a slot; None waits as long as there is time.

    Attributes:
        size: see above.
        timeout: see above.
        waits: how long was waited for slots, without those that were free.
        failed_waits: the waits that ended without a slot, by cause: `timeout`, or `deadline` of the work.
    """

    def __init__(self, size: int, timeout: float | None) -> None:
        self.size = size
        self.timeout = timeout
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.waits = Histogram(SHORT_SECONDS)
        self.failed_waits: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many slots are taken."""
        return self.size - self._free

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(not turn.done() for turn in self._waiting)

    @property
    def all_taken(self) -> bool:
        """Whether `take` would have to wait."""
        return not self._free

    def take_free(self) -> bool:
        """Take a slot without waiting, and `give_back` it later; returns whether one was free."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def take(self, time_left: TimeLeft) -> None:
        """Take a slot, and `give_back` it later; waits for it if all are taken.

        Args:
            time_left: how long the work for which the slot is wanted may still take. Work that has no time left when
                its turn comes does not get the slot.

        Raises:
            DeadlineExceeded: no time is left.
            Overloaded: no slot was free in time.
        """
        if self.take_free():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._longest_wait(time_left())):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # Its turn came at the same moment.
                self.give_back()
            else:
                # Unless `give_back` has passed over it already.
                with suppress(ValueError):
                    self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                is_late = time_left() <= 0
                self.failed_waits["deadline" if is_late else "timeout"] += 1
                raise (DeadlineExceeded if is_late else Overloaded) from error
            raise
        finally:
            self.waits.observe(time.perf_counter() - began)
        if time_left() <= 0:
            self.give_back()
            self.failed_waits["deadline"] += 1
            raise DeadlineExceeded

    def give_back(self) -> None:
        """Let the next that waits have the slot."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _longest_wait(self, seconds_left: float) -> float | None:
        # Then a client that set the deadline itself is no longer there, and gets no status that cannot be sent.
        seconds_left += _MOMENT_SECONDS
        longest = seconds_left if self.timeout is None else min(seconds_left, self.timeout)
        return None if longest == float("inf") else max(0.0, longest)
