"""Measures servers in turns: what disturbs a machine disturbs it for a while, and should not meet one server alone."""

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
    """How many calls are in flight over how many connections; with a rate, at most and at so many calls a second."""

    in_flight: int
    connections: int
    rate: float | None = None

    def __str__(self) -> str:
        """Return it as options name it."""
        return f"{self.rate:g}/s" if self.rate else f"{self.in_flight}x{self.connections}"

    def load(self, kind: Kind) -> Load | None:
        """Return the load for a server; None where it would be the same as that of another shape."""
        if not kind.http1:
            rate = self.rate and self.rate * kind.processes
            return Load(self.connections * kind.processes, self.in_flight // self.connections, rate)
        # A connection has one call at a time.
        alike = self.connections == 1 and self.in_flight > 1
        return None if alike else Load(self.in_flight, 1, self.rate)


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    rounds: int
    # Of one measured run.
    seconds: float
    # Of the calls before, which nobody looks at.
    warm_up_seconds: float
    most_calls: int = sys.maxsize
    # Whether a run has as many calls with each server, those of the quickest: then what a run costs by itself, most of
    # all its connections, weighs the same where servers are to be compared to the percent.
    same_calls: bool = False


class _Sample(NamedTuple):
    """One measured run."""

    calls: int
    outcome: Outcome
    cpu_seconds: float
    postgres_cpu_seconds: float | None


class Subject(NamedTuple):
    """A running server, and the database that it has alone or shares with others."""

    server: Server
    database: Database


class Bench:
    """What is measured, and how it is called."""

    def __init__(self, program: Path, subjects: Sequence[Subject], folder: Path) -> None:
        self._program = program
        self._subjects = subjects
        self._file = folder / "calls"

    def measure(self, workload: str, shape: Shape, plan: Plan) -> list[Measurement]:
        """Let all servers that have it bear a workload, each from the data as it was filled.

        Raises:
            BadReplyError: a server answers wrongly; nothing is known then of any.

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
        """Return how many calls a measured run has; unless at a rate, enough that its ends do not count for much."""
        hurried = Load(load.connections, load.streams)
        count = least = min(4 * load.connections * load.streams, plan.most_calls)
        while True:
            seconds = self._run(feed, server, hurried, count).outcome.seconds
            if count >= plan.most_calls or seconds >= plan.warm_up_seconds:
                break
            # At most twenty times as many, because the first calls are slow.
            more = min(plan.warm_up_seconds / seconds * 1.1, 20)
            count = min(int(count * more) + 1, plan.most_calls)
        if load.rate:
            return max(1, min(int(load.rate * plan.seconds), plan.most_calls))
        return max(least, min(int(count / seconds * plan.seconds), plan.most_calls))

    def _run(self, feed: "_Feed", server: Server, load: Load, count: int) -> _Sample:
        calls = feed.take(server.kind, count)
        write_calls(self._file, calls)
        server.shorten_log()
        cpu, postgres_cpu = server.cpu_seconds(), feed.database.cpu_seconds()
        try:
            outcome = make_calls(self._program, server.port, self._file, len(calls), load, http1=server.kind.http1)
        except BadReplyError as error:
            raise BadReplyError(f"{feed.workload} on {server.kind.name}: {error.message}") from error
        postgres_cpu_after = feed.database.cpu_seconds()
        taken = None if postgres_cpu is None or postgres_cpu_after is None else postgres_cpu_after - postgres_cpu
        return _Sample(len(calls), outcome, server.cpu_seconds() - cpu, taken)


class _Feed:
    """The calls of a workload, none of them twice: a request id is new once, an order confirmed once."""

    def __init__(self, workload: str, database: Database) -> None:
        self.workload = workload
        self.database = database
        self._calls: dict[bool, Iterator[Call]] = {}
        self._begun = 0

    def take(self, kind: Kind, count: int) -> list[Call]:
        """Return the next calls: fewer only if not even a database brought back has so many."""
        calls = list(islice(self._next(kind), count))
        if len(calls) < count:
            asyncio.run(self.database.reset())
            self._calls.clear()
            calls = list(islice(self._next(kind), count))
        return calls

    def _next(self, kind: Kind) -> Iterator[Call]:
        if kind.http1 not in self._calls:
            make = kind.calls(self.workload)
            assert make, "it is asked only for what it has"
            self._begun += 1
            self._calls[kind.http1] = make(self.database.data, Random(self._begun))
        return self._calls[kind.http1]


def _measurement(workload: str, shape: Shape, server: Server, samples: Sequence[_Sample]) -> Measurement:
    load = shape.load(server.kind)
    assert load, "it was measured"
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
