"""The deadline of a call."""

import math
import time


class Deadline:
    """The time that a call has left (implements `service.application.ports.unit_of_work.TimeLeft`).

    Attributes:
        is_callers: whether the client set the deadline. gRPC cancels a call only at a deadline that the client set.
    """

    def __init__(self, seconds: float, *, is_callers: bool = False) -> None:
        self._end = time.monotonic() + seconds
        self.is_callers = is_callers

    def __call__(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def end(self) -> None:
        """Leave no time: nobody waits for the call any longer."""
        self._end = min(self._end, time.monotonic())


def no_deadline() -> float:
    """Return the seconds that are left of unlimited time (another TimeLeft)."""
    return math.inf
