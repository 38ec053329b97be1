"""Check what metrics cost: `python -m benchmarks.metrics`.

This service with the port for metrics and without use the same database and are measured in turns. Meanwhile the page
is read every five seconds, more often than most Prometheus servers do.
"""

import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click

from benchmarks.bench import ALL, SCRATCH, stop
from benchmarks.calls import build
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Subject
from benchmarks.ratios import ROUNDS, SHAPE, WORKLOAD, print_ratios
from benchmarks.servers import KINDS, Kind, running

LIMIT = 1.05
RUN_SECONDS = 1.5
SCRAPE_SECONDS = 5.0
PORT = 50091


@click.command()
@WORKLOAD
@ROUNDS
@click.option(
    "--seconds", default=RUN_SECONDS, show_default=True, help="Duration of a measured run of the faster server."
)
@click.option("--limit", default=LIMIT, show_default=True, help="Highest allowed ratio of server CPU per call.")
def main(*, workloads: Sequence[str], rounds: int, seconds: float, limit: float) -> None:
    """Compare the cost of calls without and with metrics."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    kinds = (
        KINDS[0],
        Kind("metrics", "this service with metrics", ("env", f"COMMERCE_METRICS_PORT={PORT}", *KINDS[0].command)),
    )
    with ExitStack() as stack:
        database = stack.enter_context(filled_database(SCRATCH / "postgres", ALL.data))
        subjects = [Subject(stack.enter_context(running(kind, database.url, SCRATCH)), database) for kind in kinds]
        stack.enter_context(_scraping())
        bench = Bench(build(SCRATCH), subjects, SCRATCH)
        print_ratios(bench, workloads, SHAPE, Plan(rounds, seconds, warm_up_seconds=1, same_calls=True), limit=limit)


@contextmanager
def _scraping() -> Iterator[None]:
    """Read the page every few seconds during the block."""
    ended = threading.Event()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )

    def scrape() -> None:
        while not ended.wait(SCRAPE_SECONDS):
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - http
                response.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
