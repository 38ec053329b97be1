"""What all metrics of a process are at one moment, in a form that can be sent to another process."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from service.observability.metrics.catalogue import Family
from service.observability.metrics.histogram import Histogram


class Exemplar(NamedTuple):
    """A call that is in a bucket of a histogram, by its trace.

    Attributes:
        bucket: the index of the bucket.
        trace_id: 32 hexadecimal digits (W3C Trace Context).
        value: what was observed.
        time: when, in seconds since 1970.
    """

    bucket: int
    trace_id: str
    value: float
    time: float


class Buckets(NamedTuple):
    """The value of a histogram.

    Attributes:
        counts: how many values each bucket has, without those of the buckets below it.
        total: the sum of all values.
        exemplars: at most one for each bucket.
    """

    counts: Sequence[int]
    total: float
    exemplars: Sequence[Exemplar] = ()


Labels = tuple[str, ...]
Value = float | Buckets


class Snapshot:
    """The samples of the metrics of a process, by the name of the metric and the values of its labels."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[Labels, Value]] = {}

    def add(self, family: Family, value: Value | Histogram, *labels: str) -> None:
        """Add a sample.

        Args:
            family: the metric.
            value: its value; of a histogram, a copy is taken.
            labels: the values of its labels, in their order.
        """
        if isinstance(value, Histogram):
            value = Buckets(tuple(value.counts), value.total)
        self.samples.setdefault(family.name, {})[labels] = value

    def to_json(self) -> bytes:
        """Return the snapshot as JSON."""
        return orjson.dumps({name: list(samples.items()) for name, samples in self.samples.items()}, default=tuple)


def snapshot_of(data: bytes) -> Snapshot:
    """Return the snapshot that `to_json` has made; raises ValueError, TypeError or IndexError for anything else."""
    snapshot = Snapshot()
    for name, samples in orjson.loads(data).items():
        snapshot.samples[name] = {tuple(labels): _value(value) for labels, value in samples}
    return snapshot


def _value(value: Any) -> Value:  # noqa: ANN401 - JSON
    if not isinstance(value, list):
        return float(value)
    counts, total, exemplars = value
    return Buckets(counts, total, [Exemplar(*exemplar) for exemplar in exemplars])


def latest_exemplars(exemplars: Iterable[Exemplar]) -> list[Exemplar]:
    """Return the latest exemplar of each bucket, in the order of the buckets."""
    latest: dict[int, Exemplar] = {}
    for exemplar in exemplars:
        known = latest.get(exemplar.bucket)
        if known is None or known.time < exemplar.time:
            latest[exemplar.bucket] = exemplar
    return [latest[bucket] for bucket in sorted(latest)]
