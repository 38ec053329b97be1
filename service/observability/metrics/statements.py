"""How long the statements of a database take, by their names, and how many calls share one."""

from service.observability.metrics import catalogue
from service.observability.metrics.histogram import BATCH_SIZES, SHORT_SECONDS, Histogram
from service.observability.metrics.snapshot import Snapshot

# A bound of the buckets, so that slow statements need not be counted by themselves.
SLOW_SECONDS = 1.0
_SLOW_BUCKET = SHORT_SECONDS.index(SLOW_SECONDS) + 1


class Statements:
    """What is counted of the statements of one database.

    The names come from the code, so there is a fixed number of them.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, Histogram] = {}
        self._rows: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._batches: dict[str, Histogram] = {}

    def observe(self, name: str, seconds: float, rows: int | None) -> None:
        """Count a statement.

        Args:
            name: its name.
            seconds: how long it has taken.
            rows: how many rows it has returned or changed; None if it has failed.
        """
        try:
            histogram = self._seconds[name]
        except KeyError:
            histogram = self._seconds[name] = Histogram(SHORT_SECONDS)
            self._rows[name] = self._failures[name] = 0
        histogram.observe(seconds)
        if rows is None:
            self._failures[name] += 1
        else:
            self._rows[name] += rows

    def batches(self, name: str) -> Histogram:
        """Return the histogram of how many calls share a statement."""
        return self._batches.setdefault(name, Histogram(BATCH_SIZES))

    def add_to(self, snapshot: Snapshot) -> None:
        """Add all of this to a snapshot."""
        for name, histogram in self._seconds.copy().items():
            snapshot.add(catalogue.STATEMENT_SECONDS, histogram, name)
            snapshot.add(catalogue.STATEMENT_ROWS, self._rows[name], name)
            snapshot.add(catalogue.STATEMENT_FAILURES, self._failures[name], name)
            snapshot.add(catalogue.SLOW_STATEMENTS, sum(histogram.counts[_SLOW_BUCKET:]), name)
        for name, histogram in self._batches.copy().items():
            snapshot.add(catalogue.BATCH_SIZE, histogram, name)
