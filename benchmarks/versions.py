"""Check that a call costs the same as with an earlier commit: `python -m benchmarks.versions --base COMMIT`.

The server of this tree and that of the commit, which is extracted from git, run at the same time on one database and
are measured in turns. Both use the packages that are installed now, and the schema of this tree.
"""

import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.bench import ALL, SCRATCH, stop
from benchmarks.calls import build
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Subject
from benchmarks.ratios import ROUNDS, SECONDS, SHAPE, WORKLOAD, print_ratios
from benchmarks.servers import KINDS, ROOT, Kind, running


@click.command()
@click.option("--base", required=True, help="Commit to compare with: a hash, branch or tag.")
@click.option("--limit", default=1.05, show_default=True, help="Highest allowed ratio of server CPU per call.")
@WORKLOAD
@ROUNDS
@SECONDS
def main(*, base: str, limit: float, workloads: Sequence[str], rounds: int, seconds: float) -> None:
    """Compare the cost of calls with an earlier commit."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(SCRATCH / "postgres", ALL.data))
        kinds = (earlier(base, scratch / "base"), KINDS[0])
        subjects = [Subject(stack.enter_context(running(kind, database.url, scratch)), database) for kind in kinds]
        bench = Bench(build(SCRATCH), subjects, SCRATCH)
        print_ratios(bench, workloads, SHAPE, Plan(rounds, seconds, warm_up_seconds=1, same_calls=True), limit=limit)


def earlier(commit: str, folder: Path) -> Kind:
    """Extract a commit into a folder, and return how to run its server."""
    archive = subprocess.run(  # noqa: S603 - our own command
        ["git", "archive", commit, "service", "client", "migrations"],  # noqa: S607 - git is found through PATH
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    path = os.pathsep.join([str(folder), str(folder / "client")])
    # Python looks for modules in the current folder first.
    command = ("env", "-C", folder, f"PYTHONPATH={path}", sys.executable, "-m", "service", "serve")
    return Kind(f"base {commit[:10]}", "this service at an earlier commit", command)


if __name__ == "__main__":
    main(sys.argv[1:])
