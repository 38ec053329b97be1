"""Two ways to run this service, compared by their ratios: absolute figures are those of a machine and a day.

A machine that others use too changes its speed several times a second, by as much as a half. So the two run in turns
in many short rounds, and the means of all rounds are compared: a median says only what a few of them took.
"""

from collections.abc import Sequence
from operator import truediv
from statistics import fmean, quantiles

import click

from benchmarks.measuring import Bench, Plan, Shape
from benchmarks.report import MAIN_SHAPE
from benchmarks.results import Measurement, Spread
from benchmarks.workloads import WORKLOADS

# The same in both programs.
WORKLOAD = click.option(
    "--workload", "workloads", type=click.Choice(list(WORKLOADS)), multiple=True, default=list(WORKLOADS)
)
ROUNDS = click.option("--rounds", type=click.IntRange(min=2), default=50, show_default=True)
SECONDS = click.option("--seconds", default=0.4, show_default=True, help="Of one measured run, with the quicker.")
SHAPE = Shape(*MAIN_SHAPE)


def print_ratios(bench: Bench, workloads: Sequence[str], shape: Shape, plan: Plan, *, limit: float) -> None:
    """Measure each workload, and print the figures of both subjects of the bench, and the second's by the first's.

    Raises:
        click.ClickException: the server CPU of a workload is more than `limit` times that of the first.

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
        raise click.ClickException(f"the server CPU of {', '.join(over)} is more than {limit:g} times as much")


def _figures(first: Measurement, second: Measurement) -> list[tuple[str, Spread, Spread]]:
    figures = [("server CPU, µs", first.cpu_us, second.cpu_us), ("p50, ms", first.p50_ms, second.p50_ms)]
    if first.postgres_cpu_us and second.postgres_cpu_us:
        figures.append(("PostgreSQL CPU, µs", first.postgres_cpu_us, second.postgres_cpu_us))
    return figures


def _ratio(before: Spread, after: Spread) -> float:
    return fmean(after.values) / fmean(before.values)
