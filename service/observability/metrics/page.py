"""The page that Prometheus reads: in OpenMetrics, or in the older text format for who does not ask for that."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.utils import floatToGoString

from service.observability.metrics.catalogue import FAMILIES, Family
from service.observability.metrics.snapshot import Buckets, Labels, Snapshot, Value

# The label that tells the samples of several workers apart.
WORKER = "worker"
# How many children of a metric are written in one turn of the event loop. A histogram has 20 lines for each, so this
# takes about a millisecond.
_CHILDREN = 2
_END = b"# EOF\n"
# How long no other page is written after one, as a multiple of the CPU time that it took: many readers together take at
# most a twentieth of the time of the event loop. What other work takes in between does not count: the busier a server
# is, the more its page is wanted.
_REST = 20

Child = tuple[Labels, Value]
# Turns what `collect` returns into the text of a page.
_Encode = Callable[["_Part"], bytes]


class _Part:
    """A part of a metric, in the form of a registry of prometheus_client."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        return [self._metric]


def content_type(accept: str) -> str:
    """Return the content type of the page for a header `Accept`."""
    kind: str = choose_encoder(accept)[1]
    return kind


async def encode(snapshot: Snapshot, accept: str) -> tuple[bytes, float]:
    """Return the page of a snapshot for a header `Accept`, and the CPU time it took; lets other tasks run in between.

    On the event loop and not in a thread: a thread that computes keeps the GIL for 5 ms each time.
    """
    encoder: _Encode = choose_encoder(accept)[0]
    parts = []
    seconds, began = 0.0, time.thread_time()
    for family in FAMILIES.values():
        children = iter(snapshot.samples.get(family.name, {}).items())
        is_first = True
        while some := list(islice(children, _CHILDREN)):
            text = encoder(_Part(_metric(family, some))).removesuffix(_END)
            parts.append(text if is_first else _without_head(text))
            is_first = False
            seconds += time.thread_time() - began
            await asyncio.sleep(0)
            began = time.thread_time()
    is_open_metrics = content_type(accept).startswith("application/openmetrics-text")
    return b"".join(parts) + (_END if is_open_metrics else b""), seconds


def _without_head(text: bytes) -> bytes:
    """Return the samples of a metric whose HELP, TYPE and UNIT have been written already."""
    while text.startswith(b"#"):
        text = text.partition(b"\n")[2]
    return text


def _metric(family: Family, children: Sequence[Child]) -> Metric:
    metric = Metric(family.name, family.words, family.kind, family.unit)
    for values, value in children:
        # Only those of several workers have one more.
        labels = dict(zip((*family.labels, WORKER), values, strict=False))
        if isinstance(value, Buckets):
            _add_buckets(metric, family, labels, value)
        else:
            metric.add_sample(family.name + ("_total" if family.kind == "counter" else ""), labels, value)
    return metric


def _add_buckets(metric: Metric, family: Family, labels: dict[str, str], value: Buckets) -> None:
    exemplars = {exemplar.bucket: exemplar for exemplar in value.exemplars}
    count = 0
    for index, (bound, count) in enumerate(zip(_texts(family), accumulate(value.counts), strict=True)):
        found: Any = exemplars.get(index)
        example = PrometheusExemplar({"trace_id": found.trace_id}, found.value, found.time) if found else None
        metric.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count, exemplar=example)
    metric.add_sample(f"{family.name}_count", labels, count)
    metric.add_sample(f"{family.name}_sum", labels, value.total)


def _texts(family: Family) -> Iterator[str]:
    yield from map(floatToGoString, family.bounds)
    yield "+Inf"


class PageWriter:
    """Writes pages for all who ask, one at a time, and not too often.

    Those that ask while a page is being written get the same, so however many ask, the work for them has a bound.

    Args:
        take: returns a snapshot of now.
    """

    def __init__(self, take: Callable[[], Awaitable[Snapshot]]) -> None:
        self._take = take
        self._one = asyncio.Lock()
        self._next_time = 0.0
        # The pages that are being written, by content type.
        self._writing: dict[str, asyncio.Task[bytes]] = {}

    async def page(self, accept: str) -> bytes:
        """Return the page for a header `Accept`."""
        kind = content_type(accept)
        writing = self._writing.get(kind)
        if writing is None:
            writing = self._writing[kind] = asyncio.create_task(self._write(accept))
            writing.add_done_callback(lambda _: self._writing.pop(kind))
        # Others may wait for it, too.
        return await asyncio.shield(writing)

    async def _write(self, accept: str) -> bytes:
        async with self._one:
            await asyncio.sleep(self._next_time - time.monotonic())
            snapshot = await self._take()
            page, seconds = await encode(snapshot, accept)
            self._next_time = time.monotonic() + _REST * seconds
        return page
