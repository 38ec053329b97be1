"""One page for several workers: merges what they report, and keeps the counters of those that have ended."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from service.observability.metrics import catalogue
from service.observability.metrics.catalogue import FAMILIES, Family
from service.observability.metrics.process import add_resources_to
from service.observability.metrics.snapshot import Buckets, Labels, Snapshot, Value, latest_exemplars, snapshot_of

# The value of the label `worker` for the process that starts the workers.
PARENT = "parent"

log = structlog.get_logger()


class _Report:
    """The last report of a worker.

    Attributes:
        worker: its number.
        snapshot: what it has reported; nothing before the first time.
        time: when, on the monotonic clock.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.snapshot = Snapshot()
        self.time = time.monotonic()


class WorkersMetrics:
    """The metrics of all workers together.

    The counts of a worker that has ended stay in the sums: otherwise a counter would fall, which Prometheus takes for a
    restart of everything, and adds all that the others have counted again. What a worker counts after its last report
    is lost if it is killed; one that ends in order reports once more.
    """

    def __init__(self) -> None:
        self._reports: dict[int, _Report] = {}
        # The sums of workers that have ended.
        self._ended = Snapshot()
        self._starts = 0
        self._changed = asyncio.Event()

    def started(self, pid: int, worker: int) -> None:
        """Note that a worker with a number was started."""
        self._reports[pid] = _Report(worker)
        self._starts += 1

    async def until_reported(self, ask: Callable[[], None], seconds: float) -> None:
        """Ask all workers for reports, and wait until they have sent them, or for some seconds."""
        asked = time.monotonic()
        ask()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(report.time < asked for report in self._reports.values()):
                    self._changed.clear()
                    await self._changed.wait()

    def received(self, pid: int, data: bytes) -> None:
        """Take the report of a worker."""
        try:
            snapshot = snapshot_of(data)
        except (ValueError, TypeError, IndexError, AttributeError):
            log.warning("a worker has sent metrics that cannot be read", pid=pid)
            return
        report = self._reports.get(pid)
        if report:
            report.snapshot, report.time = snapshot, time.monotonic()
            self._changed.set()

    def ended(self, pid: int) -> None:
        """Note that a worker has ended, and keep what it has counted."""
        self._changed.set()
        if report := self._reports.pop(pid, None):
            for name, samples in report.snapshot.samples.items():
                family = FAMILIES.get(name)
                if family and family.merge == "sum" and family.kind != "gauge":
                    for labels, value in samples.items():
                        _merge(self._ended, family, labels, value)

    def snapshot(self) -> Snapshot:
        """Return the metrics of all workers together, and those of this process."""
        merged = Snapshot()
        for name, samples in self._ended.samples.items():
            merged.samples[name] = samples.copy()
        now = time.monotonic()
        # The younger of two workers with a number, while one replaces the other, comes last.
        for report in self._reports.values():
            for name, samples in report.snapshot.samples.items():
                if family := FAMILIES.get(name):
                    each = (str(report.worker),) if family.merge == "each" else ()
                    for labels, value in samples.items():
                        _merge(merged, family, (*labels, *each), value)
            _merge(merged, catalogue.REPORT_AGE, (str(report.worker),), now - report.time)
        merged.add(catalogue.WORKERS, len(self._reports))
        merged.add(catalogue.WORKER_STARTS, self._starts)
        own = Snapshot()
        add_resources_to(own)
        for name, samples in own.samples.items():
            for labels, value in samples.items():
                merged.add(FAMILIES[name], value, *labels, PARENT)
        return merged


def _merge(snapshot: Snapshot, family: Family, labels: Labels, value: Value) -> None:
    known: Mapping[Labels, Value] = snapshot.samples.get(family.name, {})
    snapshot.add(family, _merged(family, known[labels], value) if labels in known else value, *labels)


def _merged(family: Family, one: Value, other: Value) -> Value:
    if isinstance(one, Buckets) or isinstance(other, Buckets):
        # Unless one of them comes from another release.
        if not (isinstance(one, Buckets) and isinstance(other, Buckets) and len(one.counts) == len(other.counts)):
            return other
        counts = [sum(pair) for pair in zip(one.counts, other.counts, strict=True)]
        return Buckets(counts, one.total + other.total, latest_exemplars([*one.exemplars, *other.exemplars]))
    match family.merge:
        case "sum":
            return one + other
        case "max":
            return max(one, other)
        case "min":
            return min(one, other)
        case "each":
            return other
