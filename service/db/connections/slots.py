"""Slots: how many may use something at a time, such as the connections of a pool, and who waits for how long."""

import asyncio

from service.application.ports.errors import DeadlineExceeded, Overloaded
from service.application.ports.unit_of_work import TimeLeft

# One that waits for a slot gives up this long after its deadline, so that gRPC has ended the call by then.
_MOMENT_SECONDS = 0.05


class Slots:
    """A number of slots. A caller that wants one waits for its turn, but not beyond its own time, nor beyond `timeout`.

    Args:
        size: the number of slots.
        timeout: the maximum seconds to wait for a slot; None waits as long as there is time.
    """

    def __init__(self, size: int, timeout: float | None) -> None:
        self.size = size
        self.timeout = timeout
        self._free = asyncio.Semaphore(size)

    @property
    def all_taken(self) -> bool:
        """Whether `take` would have to wait."""
        return self._free.locked()

    async def take(self, time_left: TimeLeft) -> None:
        """Take a slot, and `give_back` it later; waits for it if all are taken.

        Args:
            time_left: how long the work for which the slot is wanted may still take. Work that has no time left when
                its turn comes does not get the slot.

        Raises:
            DeadlineExceeded: no time is left.
            Overloaded: no slot was free in time.
        """
        if not self._free.locked():
            # Does not wait.
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._longest_wait(time_left())):
                await self._free.acquire()
        except TimeoutError as error:
            raise (DeadlineExceeded if time_left() <= 0 else Overloaded) from error
        if time_left() <= 0:
            self._free.release()
            raise DeadlineExceeded

    def give_back(self) -> None:
        """Let the next that waits have the slot."""
        self._free.release()

    def _longest_wait(self, seconds_left: float) -> float | None:
        # Then a client that set the deadline itself is no longer there, and gets no status that cannot be sent.
        seconds_left += _MOMENT_SECONDS
        longest = seconds_left if self.timeout is None else min(seconds_left, self.timeout)
        return None if longest == float("inf") else max(0.0, longest)
