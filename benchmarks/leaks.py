"""Measure the memory that connections and calls use and that calls leak: `python -m benchmarks.leaks`.

The calls are of all kinds: reads, lists and orders as in the workload Mixed, refused calls, and calls of unknown
methods. The leak is the slope of the resident memory over the second half of the calls, because the first half fills
caches, pools and the allocator's reserves. A million calls are one day at 12 calls per second.

Calls that their callers abandon, or that exceed their deadline, are measured separately, because grpcio leaks some
memory for them: the objects it made to read a request or to send a response, if the caller disconnects at that moment
(https://github.com/grpc/grpc/issues/43360, still open with 1.85.3). A call that is abandoned while the service works on
it leaks nothing. Here a thousand callers start and stop at the same time, so most calls are abandoned while their
requests are read.
"""

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
import click
from commerce.orders.v1.order_service_pb2 import CreateOrderRequest
from commerce.users.v1.user_service_pb2 import GetUserRequest

from benchmarks.bench import SCRATCH, stop
from benchmarks.callers import ABANDONED_CALLS, callers
from benchmarks.calls import build, write_calls
from benchmarks.data import Data
from benchmarks.database import Database, filled_database
from benchmarks.servers import KINDS, Server, running
from benchmarks.workloads import WORKLOADS, Call

CALLERS = 1000
WARM_UP = 2000
# Calls between two measurements of the memory.
CHUNK = 20_000
# The share of calls that the service refuses.
REFUSED = 0.08
CONNECTIONS, STREAMS = 8, 8
LIMIT_MB = 4.0
# How often CALLERS abandon their calls.
ABANDONED_ROUNDS = 20
# What each abandoned call may leak: less than the service itself holds for a call.
ABANDONED_LIMIT_BYTES = 400
# A long timeout, so that calls that wait for a lock or for a database connection do not fail during the measurement.
WAITING = ("env", "COMMERCE_DB_POOL_TIMEOUT=60", *KINDS[0].command)
SETTLED_BYTES = 100_000


@click.command()
@click.option("--calls", type=click.IntRange(4 * CHUNK), default=1_000_000, show_default=True, help="Calls to make.")
def main(*, calls: int) -> None:
    """Measure the memory of a connection, of a watch and of a waiting call, and the memory that many calls leak."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    data = Data(users=10_000, orders=20_000)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(SCRATCH / "postgres-leaks", data))
        asyncio.run(database.reset())
        mixture = Mixture(build(SCRATCH), data)
        click.echo(f"{'callers':>16}{'before MB':>11}{'with MB':>9}{'KB each':>9}{'after MB':>10}")
        # One server per kind, because the next kind would reuse the memory that the previous one freed.
        for kind in ("connect", "watch", "wait"):
            with running(replace(KINDS[0], command=WAITING), database.url, logs) as server:
                # The first calls allocate memory that stays allocated.
                mixture.make(server, WARM_UP)
                measure_held(kind, server, database)
        with running(KINDS[0], database.url, logs) as server:
            # The allocator does not return the memory of the largest number of concurrent calls. Reach that number now.
            with callers("abandon", server.port, CALLERS, data.user_id(data.users)):
                pass
            megabytes = measure_slope(mixture, server, calls)
            abandoned_bytes = measure_abandoned(server, data.user_id(data.users))
    click.echo(f"{megabytes:+.1f} MB per million calls; {mixture.failed} calls failed that should have succeeded")
    click.echo(f"{abandoned_bytes:+.0f} bytes per abandoned call")
    if megabytes > LIMIT_MB or abandoned_bytes > ABANDONED_LIMIT_BYTES:
        limits = f"{LIMIT_MB:g} MB per million calls and {ABANDONED_LIMIT_BYTES} bytes per abandoned call"
        raise click.ClickException(f"the server leaks more memory than the limits allow: {limits}")


def measure_held(kind: str, server: Server, database: Database) -> None:
    """Print the memory that the server uses for each of many callers of a kind while they are connected."""
    user_id = database.data.user_id(database.data.users)
    before = settled(server)
    with asyncio.Runner() as runner:
        lock = runner.run(locked(database.url, user_id))
        try:
            with callers(kind, server.port, CALLERS, user_id):
                held = settled(server)
        finally:
            runner.run(lock.close())
    each = (held - before) / CALLERS / 1e3
    after = settled(server)
    click.echo(f"{CALLERS:>8} {kind:>7}{before / 1e6:>11.1f}{held / 1e6:>9.1f}{each:>9.1f}{after / 1e6:>10.1f}")


async def locked(url: str, user_id: str) -> asyncpg.Connection:
    """Return a connection that holds a lock on a user's row until it is closed."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user_id))
    return connection


def settled(server: Server) -> int:
    """Wait until the memory of a server no longer changes, and return it."""
    samples = [0, server.resident_bytes()]
    while max(samples[-3:]) - min(samples[-3:]) > SETTLED_BYTES:
        time.sleep(0.5)
        samples.append(server.resident_bytes())
    return samples[-1]


def measure_slope(mixture: "Mixture", server: Server, calls: int) -> float:
    """Return the megabytes that a million calls leak."""
    points: list[tuple[int, int]] = []
    for made in range(CHUNK, calls + CHUNK, CHUNK):
        mixture.make(server, CHUNK)
        points.append((made, settled(server)))
        click.echo(f"{made:>10} calls{points[-1][1] / 1e6:>9.1f} MB")
    # Bytes per call equal megabytes per million calls.
    return slope(points)


def measure_abandoned(server: Server, user_id: str) -> float:
    """Return the bytes that an abandoned call leaks."""
    points: list[tuple[int, int]] = []
    for number in range(1, ABANDONED_ROUNDS + 1):
        server.truncate_log()
        with callers("abandon", server.port, CALLERS, user_id):
            pass
        points.append((number * CALLERS * ABANDONED_CALLS, settled(server)))
        click.echo(f"{points[-1][0]:>10} abandoned{points[-1][1] / 1e6:>9.1f} MB")
    return slope(points)


def slope(points: list[tuple[int, int]]) -> float:
    """Return the growth in bytes per call over the second half of the points."""
    calls, resident = zip(*points[len(points) // 2 :], strict=True)
    return statistics.linear_regression(calls, resident).slope


USERS, ORDERS = "/commerce.users.v1.UserService", "/commerce.orders.v1.OrderService"
REFUSED_CALLS = (
    Call(f"{USERS}/GetUser", GetUserRequest(id=str(UUID(int=1))).SerializeToString(), b""),
    Call(f"{USERS}/GetUser", GetUserRequest(id="not a UUID").SerializeToString(), b""),
    Call(f"{ORDERS}/CreateOrder", CreateOrderRequest().SerializeToString(), b""),
    Call(f"{ORDERS}/CreateOrder", b"not a message", b""),
    Call(f"{ORDERS}/NoSuchMethod", b"", b""),
)


class Mixture:
    """An endless mixture of calls of all kinds.

    Attributes:
        failed: number of calls that failed but should have succeeded. On a busy machine a few do; they must not leak.
    """

    def __init__(self, program: Path, data: Data) -> None:
        self.failed = 0
        self._program = program
        self._good = WORKLOADS["Mixed"].grpc(data, Random(1))
        self._file = program.with_name("calls")

    def make(self, server: Server, count: int) -> None:
        """Make the next `count` calls.

        Raises:
            click.ClickException: the service did not refuse an invalid call.

        """
        refused = int(count * REFUSED)
        server.truncate_log()
        self.failed += self._failures(server, islice(self._good, count - refused), count - refused)
        if self._failures(server, REFUSED_CALLS, refused) != refused:
            raise click.ClickException("the service did not refuse every invalid call")

    def _failures(self, server: Server, calls: Iterable[Call], count: int) -> int:
        write_calls(self._file, calls)
        command = [str(self._program), "--port", str(server.port), "--calls", str(count), str(self._file)]
        command += ["--connections", str(CONNECTIONS), "--streams", str(STREAMS)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
        if not made.stdout:
            raise click.ClickException(made.stderr.strip())
        failures: int = json.loads(made.stdout)["bad"]
        return failures


if __name__ == "__main__":
    main(sys.argv[1:])
