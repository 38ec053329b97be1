"""Check that a call costs the same with two workers: `python -m benchmarks.workers`.

One process of this service and two workers (COMMERCE_WORKERS) use the same database and are measured in turns. The two
get twice the load, and each has half as many database connections. Under the same total load, calls would cost more
with two processes, because each process would batch fewer calls when it accepts, reads and writes. On a machine with
two cores, shared with PostgreSQL and the load, throughput can only show that nothing is lost.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.bench import ALL, SCRATCH, stop
from benchmarks.calls import build
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Shape, Subject
from benchmarks.ratios import ROUNDS, SECONDS, WORKLOAD, print_ratios
from benchmarks.servers import KINDS, Kind, Server, running

PROCESSES = 2
LIMIT = 1.1
# Per process. With this many connections, the kernel gives both processes about as many.
SHAPE = Shape(in_flight=64, connections=16)
START_SECONDS = 30
ONE = KINDS[0]
SEVERAL = Kind(
    f"{PROCESSES} processes",
    "workers of this service",
    ("env", "COMMERCE_DB_POOL_SIZE=5", *ONE.command, "--workers", str(PROCESSES)),
    processes=PROCESSES,
)


@click.command()
@WORKLOAD
@ROUNDS
@SECONDS
def main(*, workloads: Sequence[str], rounds: int, seconds: float) -> None:
    """Compare the cost of calls with one process and with two."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(SCRATCH / "postgres", ALL.data))
        one, several = (stack.enter_context(running(kind, database.url, logs)) for kind in (ONE, SEVERAL))
        wait_until_all_serve(several)
        bench = Bench(build(SCRATCH), [Subject(one, database), Subject(several, database)], SCRATCH)
        print_ratios(bench, workloads, SHAPE, Plan(rounds, seconds, warm_up_seconds=1, same_calls=True), limit=LIMIT)


def wait_until_all_serve(server: Server) -> None:
    """Wait until every process of a server logs that it serves; the port accepts connections with the first one."""
    deadline = time.monotonic() + START_SECONDS
    while server.log.read_text().count('"serving"') < PROCESSES:
        if time.monotonic() > deadline:
            raise click.ClickException(f"not all {PROCESSES} processes started to serve within {START_SECONDS} seconds")
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
