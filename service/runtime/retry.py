"""How long to wait before the next attempt at something that failed."""

import math
import random
from dataclasses import dataclass

# Beyond it, `factor**n` of any sensible factor is far above the cap, and would one day be too large for a float.
_MAX_EXPONENT = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with a cap and jitter.

    Attributes:
        base: seconds of the first pause.
        factor: how many times longer each further pause is.
        cap: seconds that no pause exceeds.
        jitter: the largest part by which a pause is randomly shortened, from 0 to 1. It spreads the attempts of many
            clients that failed together.
    """

    base: float
    factor: float = 2.0
    cap: float = math.inf
    jitter: float = 0.5

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, at least 1."""
        longest = min(self.base * self.factor ** min(failures - 1, _MAX_EXPONENT), self.cap)
        return longest * random.uniform(1 - self.jitter, 1)  # noqa: S311 - only spreads attempts
