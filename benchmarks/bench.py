"""Compare the service with servers that do the same work: `python -m benchmarks.bench [--workload NAME ...]`.

All servers run for the whole benchmark, so that their connections and caches stay warm: an idle server costs only
memory, and a server that was just started would be measured cold. The number of calls in a measured run is chosen so
that the run takes the given time.
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
from benchmarks.client import measure_clients
from benchmarks.data import Data
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Shape, Subject
from benchmarks.report import ALONE, MAIN_SHAPE, verdicts_table, write_report
from benchmarks.results import Machine, Measurement, Results, now, versions
from benchmarks.servers import KINDS, NODE, ROOT, running
from benchmarks.workloads import WORKLOADS

SCRATCH = ROOT / ".bench"
# Not a load for the servers: what the Python clients add to a call.
PYTHON_CLIENTS = "PythonClients"
SHAPES = {str(shape): shape for shape in (Shape(*MAIN_SHAPE), Shape(*ALONE), Shape(16, 1), Shape(16, 8), Shape(64, 1))}
# Calls per second, low enough that a server has idle time: then latencies measure calls, not queues.
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
    """The workloads, servers and shapes to measure, and for how long."""

    workloads: Sequence[str]
    servers: Sequence[str]
    # Keys of SHAPES, or "rate".
    shapes: Sequence[str]
    data: Data
    # For the main shape; `plans` derives those of the other shapes.
    plan: Plan

    def plans(self, workload: str) -> Iterator[tuple[Shape, Plan]]:
        """Yield each shape to measure a workload in, with its plan."""
        others = replace(self.plan, rounds=(self.plan.rounds + 1) // 2, warm_up_seconds=self.plan.warm_up_seconds / 4)
        # The duration of a single call depends most on other programs on the machine: more and shorter rounds.
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
    workloads=(*WORKLOADS, PYTHON_CLIENTS),
    servers=tuple(kind.name for kind in KINDS),
    shapes=(*SHAPES, "rate"),
    data=Data(users=100_000, orders=200_000),
    # Many short rounds, so that a temporary disturbance or a change in the machine's speed affects all servers.
    plan=Plan(rounds=7, seconds=0.7, warm_up_seconds=1),
)
SMOKE = replace(
    ALL,
    shapes=("64x8", "rate"),
    data=Data(users=1_000, orders=5_000),
    plan=Plan(rounds=1, seconds=0.2, warm_up_seconds=0, most_calls=64),
)


def measure(choice: Choice, folder: Path, database_url: str | None = None) -> Results:
    """Start the chosen servers and their database, measure them, and return the results.

    Without a `database_url` an embedded PostgreSQL is started, with its data in the folder.

    Raises:
        click.ClickException: a server does not start, sends a wrong reply, or does not stop.

    """
    measurements: list[Measurement] = []
    program = build(folder)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(folder / "postgres", choice.data, database_url))
        chosen = [kind for kind in KINDS if kind.name in choice.servers]
        skipped = {kind.name: reason for kind in chosen if (reason := kind.missing())}
        for name, reason in skipped.items():
            click.echo(f"skipping {name}: {reason}")
        kinds = [kind for kind in chosen if kind.name not in skipped]
        servers = [stack.enter_context(running(kind, database.url, logs)) for kind in kinds]
        bench = Bench(program, [Subject(server, database) for server in servers], folder)
        for workload in (name for name in choice.workloads if name in WORKLOADS):
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
            # More rounds than of the others, which are shorter.
            clients=measure_clients(2 * choice.plan.rounds + 1) if PYTHON_CLIENTS in choice.workloads else [],
        )


def _command() -> str:
    variable = "DATABASE_URL=postgresql://... " if os.environ.get("DATABASE_URL") else ""
    arguments = f' ARGS="{shlex.join(sys.argv[1:])}"' if sys.argv[1:] else ""
    return f"{variable}make bench{arguments}"


def stop(_number: int, _frame: object) -> None:
    """Exit with an exception on a signal, so that every `with` block ends and stops its servers."""
    sys.exit("stopped")


@click.command()
@click.option("--workload", "workloads", type=click.Choice(ALL.workloads), multiple=True, default=ALL.workloads)
@click.option("--server", "servers", type=click.Choice(ALL.servers), multiple=True, default=ALL.servers)
@click.option("--shape", "shapes", type=click.Choice(ALL.shapes), multiple=True, default=ALL.shapes)
@click.option("--rounds", default=ALL.plan.rounds, show_default=True, help="Runs at 64x8; 1x1 has three times as many.")
@click.option("--seconds", default=ALL.plan.seconds, show_default=True, help="Duration of a measured run at 64x8.")
@click.option("--users", default=ALL.data.users, show_default=True, help="Users in the database.")
@click.option("--orders", default=ALL.data.orders, show_default=True, help="Orders in the database.")
@click.option("--smoke", is_flag=True, help="Check replies with a few calls of each workload; measure nothing.")
def main(*, rounds: int, seconds: float, users: int, orders: int, smoke: bool, **names: Sequence[str]) -> None:
    """Compare servers, by default all of them in every shape (calls in flight x connections, and a fixed rate).

    The report is written to docs/ if everything is measured with the default options, otherwise to .bench/.
    """
    if sys.platform != "linux":
        raise click.ClickException("this benchmark needs Linux: it reads CPU time and memory from /proc")
    signal.signal(signal.SIGTERM, stop)
    if smoke:
        with tempfile.TemporaryDirectory() as scratch:
            chosen = replace(SMOKE, workloads=names["workloads"], servers=names["servers"])
            write_report(measure(chosen, Path(scratch)), Path(scratch))
        click.echo("all replies are correct")
        return
    plan = replace(ALL.plan, rounds=rounds, seconds=seconds)
    choice = Choice(**names, data=Data(users, orders), plan=plan)
    SCRATCH.mkdir(exist_ok=True)
    results = measure(choice, SCRATCH, os.environ.get("DATABASE_URL"))
    click.echo(verdicts_table(results))
    folder = ROOT / "docs" if choice == ALL else SCRATCH
    write_report(results, folder)
    click.echo(f"report written to {folder.relative_to(ROOT)}/performance.md")


if __name__ == "__main__":
    main()
