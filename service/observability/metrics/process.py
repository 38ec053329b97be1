"""The process itself: its versions, memory, file descriptors, garbage collections, and how late its event loop is."""

import asyncio
import gc
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit

from service.observability.metrics import catalogue
from service.observability.metrics.histogram import SHORT_SECONDS, Histogram
from service.observability.metrics.snapshot import Snapshot

# How often it is measured how late the event loop is.
_PERIOD_SECONDS = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# The fields of /proc/self/stat after the name of the program, which may contain spaces (proc(5)).
_THREADS, _START, _VIRTUAL, _RESIDENT = 17, 19, 20, 21


class ProcessMetrics:
    """What is measured of this process, from `start` to `stop`.

    Attributes:
        pauses: how long garbage collections have taken.
        lags: how late the event loop was.
    """

    def __init__(self) -> None:
        self.pauses = Histogram(SHORT_SECONDS)
        self.lags = Histogram(SHORT_SECONDS)
        self._began = 0.0
        self._versions = (version("commerce-service"), platform.python_version(), version("grpcio"))
        self._measuring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to measure the garbage collector, and the event loop that is running."""
        gc.callbacks.append(self._on_collection)
        self._measuring = asyncio.create_task(self._measure_lags())

    def stop(self) -> None:
        """End that."""
        if self._measuring:
            self._measuring.cancel()
            self._measuring = None
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.pauses.observe(time.perf_counter() - self._began)

    async def _measure_lags(self) -> None:
        while True:
            due = time.perf_counter() + _PERIOD_SECONDS
            await asyncio.sleep(_PERIOD_SECONDS)
            self.lags.observe(max(0.0, time.perf_counter() - due))

    def add_to(self, snapshot: Snapshot) -> None:
        """Add all of this to a snapshot."""
        snapshot.add(catalogue.BUILD, 1, *self._versions)
        snapshot.add(catalogue.LOOP_LAG, self.lags)
        snapshot.add(catalogue.GC_PAUSE, self.pauses)
        for generation, counts in enumerate(gc.get_stats()):
            snapshot.add(catalogue.GC_COLLECTIONS, counts["collections"], str(generation))
            snapshot.add(catalogue.GC_COLLECTED, counts["collected"], str(generation))
        add_resources_to(snapshot)


def add_resources_to(snapshot: Snapshot) -> None:
    """Add the CPU time, the memory and the file descriptors of this process to a snapshot; on Linux, all of them."""
    times = os.times()
    snapshot.add(catalogue.CPU_SECONDS, times.user + times.system)
    snapshot.add(catalogue.MAX_FDS, getrlimit(RLIMIT_NOFILE)[0])
    # Not on other systems.
    with suppress(OSError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        booted = _boot_time()
        snapshot.add(catalogue.START_TIME, booted + int(fields[_START]) / ticks)
        snapshot.add(catalogue.THREADS, int(fields[_THREADS]))
        snapshot.add(catalogue.VIRTUAL_BYTES, int(fields[_VIRTUAL]))
        snapshot.add(catalogue.RESIDENT_BYTES, int(fields[_RESIDENT]) * _PAGE_BYTES)
        # One of them reads the folder.
        snapshot.add(catalogue.OPEN_FDS, len(os.listdir("/proc/self/fd")) - 1)  # noqa: PTH208 - only the number


def _boot_time() -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("btime ")).split()[1])
