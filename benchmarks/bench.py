"""Compares the service with others that do the same: `python -m benchmarks.bench [--workload NAME ...]`.

All servers run from the beginning to the end, with their connections and caches warm: one that waits costs memory only,
and one started anew would be measured cold. Each measured run has as many calls as take the time given.
"""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks.calls import build
from benchmarks.data import Data
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Shape, Subject
from benchmarks.report import ALONE, MAIN_SHAPE, verdicts_table, write_report
from benchmarks.results import Machine, Measurement, Results, now, versions
from benchmarks.servers import KINDS, NODE, ROOT, running
from benchmarks.workloads import WORKLOADS

SCRATCH = ROOT / ".bench"
SHAPES = {str(shape): shape for shape in (Shape(*MAIN_SHAPE), Shape(*ALONE), Shape(16, 1), Shape(16, 8), Shape(64, 1))}
# Calls a second that leave a server time to spare, so that latencies are those of calls and not of queues.
RATES = {
    "GetUser": 500,
    "BatchGetUsers": 100,
    "CreateOrder": 200,
    "CreateOrderWithRequestId": 200,
    "ListOrders": 100,
    "ConfirmOrder": 200,
    "Mixed": 200,
}


@dataclass(frozen=True)
class Choice:
    """What to measure, and for how long."""

    workloads: Sequence[str]
    servers: Sequence[str]
    # The names of SHAPES, and "rate".
    shapes: Sequence[str]
    data: Data
    # For the main shape.
    plan: Plan

    def plans(self, workload: str) -> Iterator[tuple[Shape, Plan]]:
        """Yield the shapes to measure a workload in."""
        others = replace(self.plan, rounds=(self.plan.rounds + 1) // 2, warm_up_seconds=self.plan.warm_up_seconds / 4)
        # How long a call takes that is alone depends the most on what else the machine does just then.
        alone = replace(others, rounds=3 * self.plan.rounds, seconds=self.plan.seconds / 6)
        for name in self.shapes:
            if name == "rate":
                yield Shape(*MAIN_SHAPE, RATES[workload]), others
            elif name == str(Shape(*MAIN_SHAPE)):
                yield SHAPES[name], self.plan
            elif name == str(Shape(*ALONE)):
                yield SHAPES[name], alone
            else:
                yield SHAPES[name], replace(others, seconds=self.plan.seconds / 3)


ALL = Choice(
    workloads=tuple(WORKLOADS),
    servers=tuple(kind.name for kind in KINDS),
    shapes=(*SHAPES, "rate"),
    data=Data(users=100_000, orders=200_000),
    # Many short ones: what disturbs a machine, and its speed for a while, then meets all servers.
    plan=Plan(rounds=7, seconds=0.7, warm_up_seconds=1),
)
SMOKE = replace(
    ALL,
    shapes=("64x8", "rate"),
    data=Data(users=1_000, orders=5_000),
    plan=Plan(rounds=1, seconds=0.2, warm_up_seconds=0, most_calls=128),
)


def measure(choice: Choice, folder: Path, database_url: str | None = None) -> Results:
    """Start everything in a folder, measure what was chosen, and return what was found.

    Without a `database_url` the folder gets a PostgreSQL of its own.

    Raises:
        click.ClickException: a server does not start, answers wrongly, or does not end.

    """
    measurements: list[Measurement] = []
    program = build(folder)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(folder / "postgres", choice.data, database_url))
        chosen = [kind for kind in KINDS if kind.name in choice.servers]
        skipped = {kind.name: reason for kind in chosen if (reason := kind.missing())}
        for name, reason in skipped.items():
            click.echo(f"{name} is left out: {reason}")
        kinds = [kind for kind in chosen if kind.name not in skipped]
        servers = [stack.enter_context(running(kind, database.url, logs)) for kind in kinds]
        bench = Bench(program, [Subject(server, database) for server in servers], folder)
        for workload in choice.workloads:
            for shape, plan in choice.plans(workload):
                found = bench.measure(workload, shape, plan)
                measurements += found
                figures = ", ".join(f"{one.server} {one.cpu_us.median:.0f}" for one in found)
                click.echo(f"{workload} {shape}: {figures} µs")
        return Results(
            finished=now(),
            command=_command(),
            machine=Machine.this(),
            versions=versions(database.version, NODE),
            users=choice.data.users,
            orders=choice.data.orders,
            servers={kind.name: kind.words for kind in kinds},
            skipped=skipped,
            measurements=measurements,
        )


def _command() -> str:
    place = "DATABASE_URL=postgresql://... " if os.environ.get("DATABASE_URL") else ""
    arguments = f' ARGS="{shlex.join(sys.argv[1:])}"' if sys.argv[1:] else ""
    return f"{place}make bench{arguments}"


def stop(_number: int, _frame: object) -> None:
    """End by an exception at a signal, so that every block ends, and with them all servers."""
    sys.exit("stopped")


@click.command()
@click.option("--workload", "workloads", type=click.Choice(ALL.workloads), multiple=True, default=ALL.workloads)
@click.option("--server", "servers", type=click.Choice(ALL.servers), multiple=True, default=ALL.servers)
@click.option("--shape", "shapes", type=click.Choice(ALL.shapes), multiple=True, default=ALL.shapes)
@click.option("--rounds", default=ALL.plan.rounds, show_default=True, help="Of 64x8; 1x1 has three times as many.")
@click.option("--seconds", default=ALL.plan.seconds, show_default=True, help="Of one measured run at 64x8.")
@click.option("--users", default=ALL.data.users, show_default=True)
@click.option("--orders", default=ALL.data.orders, show_default=True)
@click.option("--smoke", is_flag=True, help="A few calls of everything, for their answers and not for the time.")
def main(*, rounds: int, seconds: float, users: int, orders: int, smoke: bool, **names: Sequence[str]) -> None:
    """Compare servers: by default all, in every shape (calls in flight x connections, and at a fixed rate).

    The report goes to docs if everything is measured, else to .bench.
    """
    if sys.platform != "linux":
        raise click.ClickException("this needs Linux, where /proc tells what a process takes")
    signal.signal(signal.SIGTERM, stop)
    if smoke:
        with tempfile.TemporaryDirectory() as scratch:
            chosen = replace(SMOKE, workloads=names["workloads"], servers=names["servers"])
            write_report(measure(chosen, Path(scratch)), Path(scratch))
        click.echo("every reply was as expected")
        return
    plan = replace(ALL.plan, rounds=rounds, seconds=seconds)
    choice = Choice(**names, data=Data(users, orders), plan=plan)
    SCRATCH.mkdir(exist_ok=True)
    results = measure(choice, SCRATCH, os.environ.get("DATABASE_URL"))
    click.echo(verdicts_table(results))
    folder = ROOT / "docs" if choice == ALL else SCRATCH
    write_report(results, folder)
    click.echo(f"the report is {folder.relative_to(ROOT)}/performance.md")


if __name__ == "__main__":
    main()
