"""Check that a call costs the same with more data: `python -m benchmarks.growth [--large 5000000 ...]`.

Two servers of this service run at the same time, one on a small and one on a large database, each with its own
PostgreSQL in `.bench`, and are measured in turns. There are two orders per user. Only the ratio of server CPU has a
limit: PostgreSQL's CPU grows with the size of its indexes and with the share of data that its memory does not hold,
about twofold for rows that are read one by one.
"""

import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.bench import SCRATCH, stop
from benchmarks.calls import build
from benchmarks.data import Data
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Subject
from benchmarks.ratios import ROUNDS, SECONDS, SHAPE, WORKLOAD, print_ratios
from benchmarks.servers import KINDS, running

LIMIT = 1.15


@click.command()
@WORKLOAD
@ROUNDS
@SECONDS
@click.option("--small", default=100_000, show_default=True, help="Orders in the small database.")
@click.option("--large", default=5_000_000, show_default=True, help="Orders in the large database.")
def main(*, workloads: Sequence[str], rounds: int, seconds: float, small: int, large: int) -> None:
    """Compare the cost of calls on a small and on a large database."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subjects = []
        for folder, orders in (("small", small), ("large", large)):
            data = Data(users=orders // 2, orders=orders)
            database = stack.enter_context(filled_database(SCRATCH / f"postgres-{folder}", data))
            kind = replace(KINDS[0], name=f"{orders:,} orders")
            subjects.append(Subject(stack.enter_context(running(kind, database.url, logs)), database))
        bench = Bench(build(SCRATCH), subjects, SCRATCH)
        print_ratios(bench, workloads, SHAPE, Plan(rounds, seconds, warm_up_seconds=1, same_calls=True), limit=LIMIT)


if __name__ == "__main__":
    main(sys.argv[1:])
