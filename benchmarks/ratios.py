"""Compare two ways to run this service by ratios, because absolute figures depend on the machine and the day.

The speed of a shared machine changes several times per second, by up to a half. So the two are measured in turns, in
many short rounds, and the means over all rounds are compared: a median reflects only a few of the rounds.
"""

from collections.abc import Sequence
from operator import truediv
from statistics import fmean, quantiles

import click

from benchmarks.measuring import Bench, Plan, Shape
from benchmarks.report import MAIN_SHAPE
from benchmarks.results import Measurement, Spread
from benchmarks.workloads import WORKLOADS

# Options that growth.py, workers.py and versions.py share.
WORKLOAD = click.option(
    "--workload", "workloads", type=click.Choice(list(WORKLOADS)), multiple=True, default=list(WORKLOADS)
)
ROUNDS = click.option(
    "--rounds", type=click.IntRange(min=2), default=50, show_default=True, help="Measured runs of each server."
)
SECONDS = click.option(
    "--seconds", default=0.4, show_default=True, help="Duration of a measured run of the faster server."
)
SHAPE = Shape(*MAIN_SHAPE)


def print_ratios(bench: Bench, workloads: Sequence[str], shape: Shape, plan: Plan, *, limit: float) -> None:
    """Measure each workload, and print the figures of both subjects and their ratio, second to first.

    Raises:
        click.ClickException: the ratio of server CPU is above `limit` for a workload.

    """
    over: list[str] = []
    for workload in workloads:
        first, second = bench.measure(workload, shape, plan)
        click.echo(f"{workload:<26}{first.server:>18}{second.server:>18}{'ratio':>8}{'middle half, rounds':>22}")
        for figure, before, after in _figures(first, second):
            means = f"{fmean(before.values):>18.2f}{fmean(after.values):>18.2f}"
            lower, _, upper = quantiles(map(truediv, after.values, before.values), method="inclusive")
            half = f"{lower:.2f} to {upper:.2f}"
            click.echo(f"{figure:>26}{means}{_ratio(before, after):>8.3f}{half:>22}")
        if _ratio(first.cpu_us, second.cpu_us) > limit:
            over.append(workload)
    if over:
        raise click.ClickException(f"the ratio of server CPU is above {limit:g} for {', '.join(over)}")


def _figures(first: Measurement, second: Measurement) -> list[tuple[str, Spread, Spread]]:
    figures = [("server CPU, µs", first.cpu_us, second.cpu_us), ("p50, ms", first.p50_ms, second.p50_ms)]
    if first.postgres_cpu_us and second.postgres_cpu_us:
        figures.append(("PostgreSQL CPU, µs", first.postgres_cpu_us, second.postgres_cpu_us))
    return figures


def _ratio(before: Spread, after: Spread) -> float:
    return fmean(after.values) / fmean(before.values)
