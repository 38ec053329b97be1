"""How long a call may still take."""

import time


class Deadline:
    """Seconds left until a point in time (`service.application.ports.unit_of_work.TimeLeft`).

    Attributes:
        is_callers: whether the caller has set it. gRPC cancels a call at its caller's deadline, at no other.
    """

    def __init__(self, seconds: float, *, is_callers: bool = False) -> None:
        self._end = time.monotonic() + seconds
        self.is_callers = is_callers

    def __call__(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()
