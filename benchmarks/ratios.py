"""Two ways to run this service, compared by their ratios: absolute figures are those of a machine and a day.

A machine that others use too may be twice as slow for a while, also in the middle of a measurement. So the two are
compared in each of many short rounds, in which they run one right after the other, and the median of that counts.
"""

import statistics
from collections.abc import Sequence

import click

from benchmarks.measuring import Bench, Plan, Shape
from benchmarks.report import MAIN_SHAPE
from benchmarks.results import Measurement, Spread
from benchmarks.workloads import WORKLOADS

# The same in both programs.
WORKLOAD = click.option(
    "--workload", "workloads", type=click.Choice(list(WORKLOADS)), multiple=True, default=list(WORKLOADS)
)
ROUNDS = click.option("--rounds", type=click.IntRange(min=2), default=21, show_default=True)
SECONDS = click.option("--seconds", default=0.7, show_default=True, help="Of one measured run.")
SHAPE = Shape(*MAIN_SHAPE)


def print_ratios(bench: Bench, workloads: Sequence[str], shape: Shape, plan: Plan, *, limit: float) -> None:
    """Measure each workload, and print the figures of both subjects of the bench, and the second's by the first's.

    Raises:
        click.ClickException: the server CPU of a workload is more than `limit` times that of the first.

    """
    over: list[str] = []
    for workload in workloads:
        first, second = bench.measure(workload, shape, plan)
        click.echo(f"{workload:<26}{first.server:>18}{second.server:>18}{'ratio':>8}{'half of the rounds':>21}")
        for figure, before, after in _figures(first, second):
            ratios = _ratios(before, after)
            lower, _, upper = statistics.quantiles(ratios, method="inclusive")
            half = f"{lower:.2f} to {upper:.2f}"
            medians = f"{before.median:>18.2f}{after.median:>18.2f}{statistics.median(ratios):>8.3f}"
            click.echo(f"{figure:>26}{medians}{half:>21}")
        if statistics.median(_ratios(first.cpu_us, second.cpu_us)) > limit:
            over.append(workload)
    if over:
        raise click.ClickException(f"the server CPU of {', '.join(over)} is more than {limit:g} times as much")


def _figures(first: Measurement, second: Measurement) -> list[tuple[str, Spread, Spread]]:
    figures = [("server CPU, µs", first.cpu_us, second.cpu_us), ("p50, ms", first.p50_ms, second.p50_ms)]
    if first.postgres_cpu_us and second.postgres_cpu_us:
        figures.append(("PostgreSQL CPU, µs", first.postgres_cpu_us, second.postgres_cpu_us))
    return figures


def _ratios(before: Spread, after: Spread) -> list[float]:
    return [second / first for first, second in zip(before.rounds, after.rounds, strict=True)]
