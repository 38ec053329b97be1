"""Exponential backoff: how long to wait before the next attempt."""

import math
import random
from dataclasses import dataclass

# With this exponent, `factor**n` is far above any sensible cap; with a much larger one, it would overflow a float.
_MAX_EXPONENT = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with a cap and jitter.

    Attributes:
        base: seconds of the first pause.
        factor: how many times longer each further pause is.
        cap: the maximum seconds of a pause.
        jitter: the maximum fraction of a pause that is cut off at random, from 0 to 1. It spreads the attempts of
            many calls that failed together.
    """

    base: float
    factor: float = 2.0
    cap: float = math.inf
    jitter: float = 0.5

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after this number of consecutive failures, which is at least 1."""
        longest = min(self.base * self.factor ** min(failures - 1, _MAX_EXPONENT), self.cap)
        return longest * random.uniform(1 - self.jitter, 1)  # noqa: S311 - only spreads attempts
