"""Writes what a benchmark found: JSON, a plot, and tables in docs/performance.md, of which only that part is generated.

    python -m benchmarks.report docs/performance.json

makes the tables and the plot anew.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.plot import plot
from benchmarks.results import Measurement, Results

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- from here made by make bench -->\n", "<!-- to here made by make bench -->\n"
OURS = "commerce"
# Calls in flight, and connections.
MAIN_SHAPE, ALONE = (64, 8), (1, 1)
# How much of the processor the service may take for a call in the main shape, as a part of what another server takes.
CPU_TARGETS: Mapping[str, Mapping[str, float]] = {
    "GetUser": {"bare": 0.6, "guide": 0.22, "fastapi": 0.25, "node": 2.0},
    "BatchGetUsers": {"bare": 1.0, "guide": 0.2, "node": 1.0},
    "CreateOrderWithRequestId": {"bare": 0.8, "guide": 0.15, "fastapi": 0.15, "node": 1.6},
    "ListOrders": {"bare": 1.0, "guide": 0.18, "fastapi": 0.15, "node": 0.7},
    "ConfirmOrder": {"bare": 1.5, "guide": 0.6},
}
# How long a call that is alone may take.
P50_TARGETS: Mapping[str, Mapping[str, float]] = {workload: {"bare": 1.25} for workload in CPU_TARGETS}
UNKNOWN = "–"  # noqa: RUF001 - what is not there, in print
# From here on a figure has enough digits without decimals.
AS_WHOLE = 20
# The part of a rate at which a server keeps up with it, as far as so few calls at Poisson times can tell.
KEEPS_UP = 0.9


class Verdict(NamedTuple):
    """A target and what was measured of it; None where that was left out."""

    workload: str
    figure: str
    peer: str
    ours: float | None
    theirs: float | None
    target: float

    @property
    def ratio(self) -> float | None:
        """Return ours as a part of theirs."""
        return None if self.ours is None or self.theirs is None else self.ours / self.theirs

    @property
    def word(self) -> str:
        """Return whether the target is met."""
        if self.ratio is None:
            return UNKNOWN
        return "holds" if self.ratio <= self.target else "missed"


def judged(results: Results) -> Iterator[Verdict]:
    """Yield the verdict on every target of the workloads that were measured."""

    def verdicts(
        targets: Mapping[str, Mapping[str, float]],
        figure: str,
        shape: tuple[int, int],
        of: Callable[[Measurement], float],
    ) -> Iterator[Verdict]:
        measured = {found.workload for found in results.measurements}
        for workload, peers in ((name, peers) for name, peers in targets.items() if name in measured):
            for peer, target in peers.items():
                found = (results.find(workload, server, *shape) for server in (OURS, peer))
                ours, theirs = (of(one) if one else None for one in found)
                yield Verdict(workload, figure, peer, ours, theirs, target)

    yield from verdicts(CPU_TARGETS, "CPU, µs", MAIN_SHAPE, lambda found: found.cpu_us.median)
    yield from verdicts(P50_TARGETS, "p50 of a call alone, ms", ALONE, lambda found: found.p50_ms.median)


def write_report(results: Results, folder: Path) -> None:
    """Write performance.json, performance.svg and performance.md into a folder."""
    (folder / "performance.json").write_text(results.model_dump_json(indent=1) + "\n")
    (folder / "performance.svg").write_text(plot(results, *MAIN_SHAPE))
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    (folder / "performance.md").write_text("".join([before, BEGIN, "\n", *_generated(results), "\n", END, after]))


def verdicts_table(results: Results) -> str:
    """Return the table of all targets."""
    rows = (
        (*one[:3], *map(_number, (one.ours, one.theirs, one.ratio, one.target)), one.word) for one in judged(results)
    )
    return _table(
        ("Workload", "Figure", "Peer", "Ours", "Theirs", "Ours / theirs", "At most", "Verdict"), rows, texts=3
    )


def _generated(results: Results) -> Iterator[str]:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield f"`{results.command}`, {results.finished:%Y-%m-%d}, {results.users:,} users and {results.orders:,} orders"
    yield f" on {machine.processor}, {machine.cores} cores, {machine.memory_gb:.0f} GiB, {machine.kernel}.\n"
    yield f"{versions}.\n\n"
    yield _table(("Server", "What it is"), results.servers.items(), texts=2)
    for name, reason in results.skipped.items():
        yield f"\n{name} was left out: {reason}.\n"
    yield "\n### Server CPU for a call, µs\n\n![The table as bars](performance.svg)\n\n"
    yield _in_main_shape(results, lambda found: found.cpu_us.median)
    yield "\n### Targets\n\n"
    yield verdicts_table(results)
    yield "\n### PostgreSQL's CPU for a call, µs\n\n"
    yield _in_main_shape(results, lambda found: found.postgres_cpu_us.median if found.postgres_cpu_us else None)
    yield "\n### Memory of each server at the end\n\n"
    memory = {found.server: found.resident_mb for found in results.measurements}
    yield _table(("", *memory), [("MB", *map(_number, memory.values()))])
    yield "\n### Latency at a fixed rate: p50 / p99, ms\n\n"
    yield _at_fixed_rate(results)
    yield "\n### By calls in flight and connections: calls a second, p50 / p99, server CPU for a call\n"
    for workload in _workloads(results):
        yield f"\n#### {workload}\n\n{_by_shape(results, workload)}"


def _in_main_shape(results: Results, figure: Callable[[Measurement], float | None]) -> str:
    rows = []
    for workload in _workloads(results):
        found = (results.find(workload, server, *MAIN_SHAPE) for server in results.servers)
        rows.append((workload, *(_number(figure(one) if one else None) for one in found)))
    return _table(("Workload", *results.servers), rows)


def _at_fixed_rate(results: Results) -> str:
    rates = {found.workload: found.rate for found in results.measurements if found.rate}
    rows = []
    for workload, rate in rates.items():
        found = (results.find(workload, server, *MAIN_SHAPE, rate) for server in results.servers)
        rows.append((f"{workload}, {rate:g}/s", *(_latency(one) if one else UNKNOWN for one in found)))
    return _table(("Workload", *results.servers), rows)


def _by_shape(results: Results, workload: str) -> str:
    shapes = sorted({(one.in_flight, one.connections) for one in results.measurements if one.workload == workload})
    rows = []
    for in_flight, connections in shapes:
        found = (results.find(workload, server, in_flight, connections) for server in results.servers)
        cells = (
            f"{one.rpc_per_second.median:,.0f}/s<br>{_latency(one)} ms<br>{_number(one.cpu_us.median)} µs"
            if one
            else UNKNOWN
            for one in found
        )
        rows.append((f"{in_flight} over {connections}", *cells))
    return _table(("In flight", *results.servers), rows)


def _latency(found: Measurement) -> str:
    # One that cannot keep up has a queue that grows as long as it is measured.
    behind = found.rate and found.rpc_per_second.median < KEEPS_UP * found.rate
    return f"{_number(found.p50_ms.median)} / {_number(found.p99_ms.median)}" + (" (behind)" if behind else "")


def _workloads(results: Results) -> list[str]:
    return list(dict.fromkeys(found.workload for found in results.measurements))


def _number(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= AS_WHOLE else f"{value:.2f}"


def _table(titles: Sequence[str], rows: Iterable[Iterable[str]], *, texts: int = 1) -> str:
    """Return a table; the first columns are texts, the others figures."""
    lines = [titles, ["---" if index < texts else "--:" for index in range(len(titles))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@click.command()
@click.argument("json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(json: Path) -> None:
    """Write the tables and the plot beside JSON anew."""
    write_report(Results.model_validate_json(json.read_text()), json.parent)


if __name__ == "__main__":
    main()
