"""Draw a flame graph of a server under a workload: `python -m benchmarks.flamegraph GetUser [--table]`.

py-spy samples the stack of each Python thread a few hundred times per second, and omits threads that wait. Time in C is
attributed to the Python function that called it. With --native, C functions and gRPC's own threads are shown too, but
gRPC's wheel has no symbols for its functions.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

from benchmarks.bench import ALL, SCRATCH
from benchmarks.calls import build
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Shape, Subject
from benchmarks.report import MAIN_SHAPE
from benchmarks.servers import KINDS, ROOT, running

SAMPLES_PER_SECOND = 400
# The outermost frame of the main thread.
MAIN_THREAD = "_run_module_as_main"
# The number of functions in the table.
FUNCTIONS = 25
# The purpose of a function is the first whose expression matches the function's file or name.
PURPOSES = {
    "gRPC, the event loop, sockets, and asyncpg where it reads rows": r"asyncio/runners\.py",
    "the log line, and metadata for it": (
        r"observability/logs|structlog|access_log|rpc/call_context|UUID\.__str__|uuid_utils"
    ),
    "validation of the request": r"interceptors/validation",
    "asyncpg where it sends the statement, the statement's values, rows": (
        r"asyncpg/|db/connections|writes/fast_path|db/arrays|reads/\w*columns|reads/orders|sqlalchemy"
    ),
    "messages, and the bytes of the response": (r"rpc/messages|rpc/servicers|_serialized|etag_of"),
}
OTHERS = "everything else"


@click.command()
@click.argument("workload", type=click.Choice(ALL.workloads))
@click.option("--seconds", default=10.0, show_default=True, help="How long to sample.")
@click.option(
    "--server", type=click.Choice(ALL.servers), default="commerce", show_default=True, help="A server in Python."
)
@click.option("--alone", is_flag=True, help="Make one call at a time instead of 64.")
@click.option("--native", is_flag=True, help="Show C and C++ functions too.")
@click.option(
    "--table", is_flag=True, help="Print the share of time that each function takes by itself, instead of drawing."
)
def main(workload: str, seconds: float, server: str, *, alone: bool, native: bool, table: bool) -> None:
    """Draw a flame graph of a server in Python under WORKLOAD, into the folder .bench."""
    beside = Path(sys.executable).with_name("py-spy")
    py_spy = str(beside) if beside.exists() else shutil.which("py-spy")
    if py_spy is None:
        raise click.ClickException("py-spy is not installed: use `make profile`, or install requirements/bench.txt")
    SCRATCH.mkdir(exist_ok=True)
    output = SCRATCH / f"profile-{workload}.{'txt' if table else 'svg'}"
    kind = next(kind for kind in KINDS if kind.name == server)
    with (
        tempfile.TemporaryDirectory() as logs,
        filled_database(SCRATCH / "postgres", ALL.data, os.environ.get("DATABASE_URL")) as database,
        running(kind, database.url, Path(logs)) as target,
    ):
        bench = Bench(build(SCRATCH), [Subject(target, database)], SCRATCH)
        command = [py_spy, "record", "--function", "--pid", str(target.pid), "--output", str(output)]
        command += ["--rate", str(SAMPLES_PER_SECOND), "--format", "raw" if table else "flamegraph"]
        command += ["--native"] if native else []
        with subprocess.Popen(  # noqa: S603 - our own command
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as sampling:
            shape = Shape(1, 1) if alone else Shape(*MAIN_SHAPE)
            bench.measure(workload, shape, Plan(rounds=1, seconds=seconds, warm_up_seconds=1))
            # On SIGINT, py-spy writes its output and exits.
            sampling.send_signal(signal.SIGINT)
            _, errors = sampling.communicate()
        if sampling.returncode:
            raise click.ClickException(
                f"py-spy failed (it needs root, or kernel.yama.ptrace_scope = 0): {errors.strip()}"
            )
    if table:
        print_table(output.read_text())
    else:
        click.echo(f"flame graph written to {output.relative_to(ROOT)}; open it in a browser")


def print_table(stacks: str) -> None:
    """Print the share of the main thread's samples that each function has by itself, including the C that it calls.

    Then print the shares by purpose.
    """
    samples: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, seen = line.rpartition(" ")
        if stack.startswith(MAIN_THREAD):
            samples[stack.rpartition(";")[2]] += int(seen)
    purposes: Counter[str] = Counter()
    for function, count in samples.items():
        purposes[next((name for name, files in PURPOSES.items() if re.search(files, function)), OTHERS)] += count
    for counted in (samples, purposes):
        for name, count in counted.most_common(FUNCTIONS):
            click.echo(f"{count / samples.total():>6.1%}  {name}")


if __name__ == "__main__":
    main()
