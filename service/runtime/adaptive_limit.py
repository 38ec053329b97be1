"""A limit on concurrent calls that follows how long calls take."""

import math

# The limit is adjusted when a window has this many samples and has lasted for this many seconds, or for calls that take
# long, with fewer samples in a longer window.
_WINDOW_SAMPLES, _WINDOW_SECONDS = 50, 0.1
_FEW_SAMPLES, _LONG_WINDOW_SECONDS = 10, 0.5
_BACK_OFF = 0.9
# For how many windows at most the limit stays as it is before it grows again.
_MOST_PATIENCE = 16
# By how much of the difference the time of a quiet server grows with a window at the minimum.
_GROWTH = 0.03


class AdaptiveLimit:
    """A limit that grows while it is reached and calls are quick, and shrinks by a tenth while most calls are late.

    Additive increase, multiplicative decrease, as in TCP (RFC 5681) and Netflix's concurrency-limits. It differs from
    the latter where that is known to go wrong:

    - The time of a quiet server becomes longer only while no more than `minimum` calls run. Otherwise a long overload
      would pass for the normal state, and the limit would grow.
    - More than half of the calls must be late, so single slow ones, such as those that wait for a lock, do not matter.
    - The limit neither grows nor shrinks while few calls run.
    - Where a larger limit has just made calls late, it is tried more and more rarely. Otherwise calls would be late in
      half of all windows of an overload.

    Args:
        start: the limit at the start.
        minimum: the lowest limit.
        maximum: the highest limit.
        late_factor: a call is late if it takes longer than so many times what calls take on a quiet server,
        late_seconds: and so many seconds more. Calls that are quick on a quiet server may take relatively longer.

    Attributes:
        value: how many calls may run.
        reached: set by the user when a call had to wait; only then does the limit grow.
    """

    def __init__(
        self, start: int, *, minimum: int, maximum: int, late_factor: float = 2.0, late_seconds: float = 0.005
    ) -> None:
        self.value = start
        self.reached = False
        self._minimum = minimum
        self._maximum = maximum
        self._late_factor, self._late_seconds = late_factor, late_seconds
        # How long calls take on a quiet server, and from when on they are late.
        self._quiet = self._late_from = math.inf
        # For how many windows the limit stays after it has shrunk, how many are left, and whether it grew in the last.
        self._patience, self._waits, self._grew = 1, 0, False
        # In this window: the shortest time, how many calls have ended, and how many of them were late.
        self._shortest = math.inf
        self._samples = self._late = 0
        self._window_began = 0.0

    @property
    def usual_seconds(self) -> float:
        """How long a call takes while the limit is kept; 0 if it is not known how long it takes on a quiet server."""
        return self._quiet * self._late_factor if self._quiet < math.inf else 0.0

    def add(self, seconds: float, running: int, now: float) -> None:
        """Take account of a call that has succeeded.

        Args:
            seconds: how long it took.
            running: how many calls ran within this limit when it began, with itself.
            now: the seconds of a monotonic clock.
        """
        if seconds < self._shortest and (running <= self._minimum or seconds < self._quiet):
            self._shortest = seconds
        self._late += seconds > self._late_from
        self._samples += 1
        if self._samples >= _FEW_SAMPLES:
            lasted = now - self._window_began
            if lasted >= (_WINDOW_SECONDS if self._samples >= _WINDOW_SAMPLES else _LONG_WINDOW_SECONDS):
                self._adjust(now)

    def _adjust(self, now: float) -> None:
        if self._late * 2 > self._samples:
            self.value = max(self._minimum, int(self.value * _BACK_OFF))
            if self._grew:
                self._patience = min(self._patience * 2, _MOST_PATIENCE)
            self._waits, self._grew = self._patience, False
        elif self.reached:
            if self._grew:
                self._patience = max(1, self._patience // 2)
            self._grew = self._waits == 0
            if self._grew:
                self.value = min(self._maximum, self.value + math.ceil(math.sqrt(self.value) / 2))
            else:
                self._waits -= 1
        if self._shortest < self._quiet:
            self._quiet = self._shortest
        elif self._shortest < math.inf:
            self._quiet += (self._shortest - self._quiet) * _GROWTH
        self._late_from = self._quiet * self._late_factor + self._late_seconds
        self._shortest = math.inf
        self.reached = False
        self._samples = self._late = 0
        self._window_began = now
