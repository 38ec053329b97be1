"""A histogram of plain integers, which costs a fifth of one of prometheus_client to observe into."""

from bisect import bisect_left
from collections.abc import Sequence

# The bounds are powers of two, as those of Prometheus' native histograms with schema 0, which a server that converts
# classic histograms then keeps exactly. In seconds: 0.5 ms to 32 s, longer than the default deadline.
CALL_SECONDS = tuple(2.0**exponent for exponent in range(-11, 6))
# Statements of the database, waits and pauses: 0.1 ms to 16 s.
SHORT_SECONDS = tuple(2.0**exponent for exponent in range(-13, 5))
# Items in a batch.
BATCH_SIZES = tuple(2.0**exponent for exponent in range(8))


class Histogram:
    """Counts observed values in buckets.

    Args:
        bounds: the inclusive upper bounds of the buckets, ascending; a last bucket has no bound.

    Attributes:
        bounds: see above.
        counts: how many values each bucket has, without those of the buckets below it.
        total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value.

        >>> histogram = Histogram([1, 2])
        >>> for value in (0.5, 1, 1.5, 3):
        ...     histogram.observe(value)
        >>> histogram.counts, histogram.total
        ([2, 1, 1], 6.0)
        """
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)
