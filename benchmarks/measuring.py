"""Measure servers in turns, so that a temporary disturbance of the machine does not affect only one of them."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.calls import BadReplyError, Load, Outcome, make_calls, write_calls
from benchmarks.database import Database
from benchmarks.results import Measurement, Spread
from benchmarks.servers import Kind, Server
from benchmarks.workloads import Call


@dataclass(frozen=True)
class Shape:
    """The number of calls in flight and of connections; with a rate, the most calls in flight, and calls per second."""

    in_flight: int
    connections: int
    rate: float | None = None

    def __str__(self) -> str:
        """Return the shape as the option --shape names it."""
        return f"{self.rate:g}/s" if self.rate else f"{self.in_flight}x{self.connections}"

    def load(self, kind: Kind) -> Load | None:
        """Return the load for a server, or None if another shape gives the same load."""
        if not kind.http1:
            rate = self.rate and self.rate * kind.processes
            return Load(self.connections * kind.processes, self.in_flight // self.connections, rate)
        # An HTTP/1.1 connection carries one call at a time, so every call in flight needs its own connection.
        alike = self.connections == 1 and self.in_flight > 1
        return None if alike else Load(self.in_flight, 1, self.rate)


@dataclass(frozen=True)
class Plan:
    """The number and duration of measured runs."""

    rounds: int
    # The duration of one measured run.
    seconds: float
    # The duration of the calls before, which are not measured.
    warm_up_seconds: float
    most_calls: int = sys.maxsize
    # Whether a run has the same number of calls with each server, that of the fastest. The fixed cost of a run, mostly
    # its connections, then weighs the same, which matters where servers are compared to the percent.
    same_calls: bool = False


class _Sample(NamedTuple):
    """One measured run."""

    calls: int
    outcome: Outcome
    cpu_seconds: float
    postgres_cpu_seconds: float | None


class Subject(NamedTuple):
    """A running server and its database, which it may share with other servers."""

    server: Server
    database: Database


class Bench:
    """The servers to measure, and the load program that calls them."""

    def __init__(self, program: Path, subjects: Sequence[Subject], folder: Path) -> None:
        self._program = program
        self._subjects = subjects
        self._file = folder / "calls"

    def measure(self, workload: str, shape: Shape, plan: Plan) -> list[Measurement]:
        """Measure all servers that implement a workload, in turns, after resetting their databases.

        Raises:
            BadReplyError: a server sends a wrong reply; the results of all servers are then discarded.

        """
        databases = {subject.database for subject in self._subjects}
        feeds = {database: _Feed(workload, database) for database in databases}
        for database in databases:
            asyncio.run(database.reset())
        loads = [
            (subject, load)
            for subject in self._subjects
            if subject.server.kind.calls(workload) and (load := shape.load(subject.server.kind))
        ]
        counts = {
            subject: self._warm_up(feeds[subject.database], subject.server, load, plan) for subject, load in loads
        }
        if plan.same_calls:
            counts = dict.fromkeys(counts, max(counts.values()))
        samples: dict[Subject, list[_Sample]] = {subject: [] for subject, _ in loads}
        for turn in range(plan.rounds):
            first = turn % len(loads)
            for subject, load in loads[first:] + loads[:first]:
                samples[subject].append(self._run(feeds[subject.database], subject.server, load, counts[subject]))
        return [_measurement(workload, shape, subject.server, samples[subject]) for subject, _ in loads]

    def _warm_up(self, feed: "_Feed", server: Server, load: Load, plan: Plan) -> int:
        """Warm a server up, and return the number of calls in a measured run.

        Without a rate it is large enough that the beginning and the end of the run, with fewer calls in flight, matter
        little.
        """
        unpaced = Load(load.connections, load.streams)
        count = least = min(4 * load.connections * load.streams, plan.most_calls)
        while True:
            seconds = self._run(feed, server, unpaced, count).outcome.seconds
            if count >= plan.most_calls or seconds >= plan.warm_up_seconds:
                break
            # The first calls are slow, so their duration says little: grow by at most a factor of twenty.
            more = min(plan.warm_up_seconds / seconds * 1.1, 20)
            count = min(int(count * more) + 1, plan.most_calls)
        if load.rate:
            return max(1, min(int(load.rate * plan.seconds), plan.most_calls))
        return max(least, min(int(count / seconds * plan.seconds), plan.most_calls))

    def _run(self, feed: "_Feed", server: Server, load: Load, count: int) -> _Sample:
        calls = feed.take(server.kind, count)
        write_calls(self._file, calls)
        server.truncate_log()
        cpu, postgres_cpu = server.cpu_seconds(), feed.database.cpu_seconds()
        try:
            outcome = make_calls(self._program, server.port, self._file, len(calls), load, server.kind.protocol)
        except BadReplyError as error:
            raise BadReplyError(f"{feed.workload} on {server.kind.name}: {error.message}") from error
        postgres_cpu_after = feed.database.cpu_seconds()
        taken = None if postgres_cpu is None or postgres_cpu_after is None else postgres_cpu_after - postgres_cpu
        return _Sample(len(calls), outcome, server.cpu_seconds() - cpu, taken)


class _Feed:
    """The calls of a workload, each made only once: a request id is new once, and an order is confirmed once."""

    def __init__(self, workload: str, database: Database) -> None:
        self.workload = workload
        self.database = database
        self._calls: dict[bool, Iterator[Call]] = {}
        self._begun = 0

    def take(self, kind: Kind, count: int) -> list[Call]:
        """Return the next calls, after a reset of the database if it has too few left; fewer if that is not enough."""
        calls = list(islice(self._next(kind), count))
        if len(calls) < count:
            asyncio.run(self.database.reset())
            self._calls.clear()
            calls = list(islice(self._next(kind), count))
        return calls

    def _next(self, kind: Kind) -> Iterator[Call]:
        if kind.http1 not in self._calls:
            make = kind.calls(self.workload)
            assert make, "only servers that implement the workload are measured"
            self._begun += 1
            self._calls[kind.http1] = make(self.database.data, Random(self._begun))
        return self._calls[kind.http1]


def _measurement(workload: str, shape: Shape, server: Server, samples: Sequence[_Sample]) -> Measurement:
    load = shape.load(server.kind)
    assert load, "only shapes with a load were measured"
    postgres = [
        sample.postgres_cpu_seconds / sample.calls * 1e6
        for sample in samples
        if sample.postgres_cpu_seconds is not None
    ]
    return Measurement(
        workload=workload,
        server=server.kind.name,
        in_flight=shape.in_flight,
        connections=shape.connections,
        rate=shape.rate,
        rounds=len(samples),
        calls=min(sample.calls for sample in samples),
        cpu_us=Spread.of(sample.cpu_seconds / sample.calls * 1e6 for sample in samples),
        postgres_cpu_us=Spread.of(postgres) if postgres else None,
        rpc_per_second=Spread.of(sample.calls / sample.outcome.seconds for sample in samples),
        p50_ms=Spread.of(sample.outcome.p50_ms for sample in samples),
        p99_ms=Spread.of(sample.outcome.p99_ms for sample in samples),
        resident_mb=round(server.resident_bytes() / 1e6, 1),
    )
