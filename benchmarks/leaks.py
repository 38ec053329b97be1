"""What a connection and a call take of the server's memory, and what they leave: `python -m benchmarks.leaks`.

Calls are of all kinds: reads, pages and orders as in the workload Mixed, refused and unknown ones. What they leave is
the slope of the resident memory over the second half of them: the first fills caches, pools and the allocator's own
reserves. A day of 12 calls a second is a million.

Those that their callers leave, or that outlast their deadline, are measured by themselves, because grpcio does leave
something of them: what it made to read a request, or to send an answer, when the caller goes at that moment
(https://github.com/grpc/grpc/issues/43360, open with 1.85.3). Of a call that is left while it is worked on nothing
stays. Here a thousand callers come and go at once, so that most go while their requests are read.
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
from benchmarks.callers import CALLS_LEFT, callers
from benchmarks.calls import build, write_calls
from benchmarks.data import Data
from benchmarks.database import Database, filled_database
from benchmarks.servers import KINDS, Server, running
from benchmarks.workloads import WORKLOADS, Call

AT_ONCE = 1000
WARM_UP = 2000
# Between two looks at the memory.
CHUNK = 20_000
# Of all calls.
REFUSED = 0.08
CONNECTIONS, STREAMS = 8, 8
LIMIT_MB = 4.0
# How often as many as there can be at once leave their calls, and what each of these may leave: less than what this
# service keeps of a call.
ROUNDS_LEFT = 20
LIMIT_LEFT_BYTES = 400
# So that all who wait for a lock, or for a connection to the database, wait long enough.
PATIENT = ("env", "COMMERCE_DB_POOL_TIMEOUT=60", *KINDS[0].command)
SETTLED_BYTES = 100_000


@click.command()
@click.option("--calls", type=click.IntRange(4 * CHUNK), default=1_000_000, show_default=True)
def main(*, calls: int) -> None:
    """Measure memory by connection, by call, and over many CALLS."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    data = Data(users=10_000, orders=20_000)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(SCRATCH / "postgres-leaks", data))
        asyncio.run(database.reset())
        mixture = Mixture(build(SCRATCH), data)
        click.echo(f"{'at once':>16}{'before MB':>11}{'with MB':>9}{'KB each':>9}{'after MB':>10}")
        # A server each, because memory that one kind gave back would be there for the next.
        for kind in ("connect", "watch", "wait"):
            with running(replace(KINDS[0], command=PATIENT), database.url, logs) as server:
                # What the first calls need stays.
                mixture.make(server, WARM_UP)
                measure_held(kind, server, database)
        with running(KINDS[0], database.url, logs) as server:
            # The allocator keeps what the most calls at once took: here more than at any time later.
            with callers("leave", server.port, AT_ONCE, data.user_id(data.users)):
                pass
            megabytes = measure_slope(mixture, server, calls)
            left_bytes = measure_left(server, data.user_id(data.users))
    click.echo(f"{megabytes:+.1f} MB in a million calls; {mixture.failed} of all calls failed that should not have")
    click.echo(f"{left_bytes:+.0f} bytes of each call that its caller leaves")
    if megabytes > LIMIT_MB or left_bytes > LIMIT_LEFT_BYTES:
        raise click.ClickException(f"more than {LIMIT_MB:g} MB, or {LIMIT_LEFT_BYTES} bytes of each that is left")


def measure_held(kind: str, server: Server, database: Database) -> None:
    """Print what each of many callers of a kind takes of the memory while it is there."""
    user_id = database.data.user_id(database.data.users)
    before = settled(server)
    with asyncio.Runner() as runner:
        lock = runner.run(locked(database.url, user_id))
        try:
            with callers(kind, server.port, AT_ONCE, user_id):
                held = settled(server)
        finally:
            runner.run(lock.close())
    each = (held - before) / AT_ONCE / 1e3
    after = settled(server)
    click.echo(f"{AT_ONCE:>8} {kind:>7}{before / 1e6:>11.1f}{held / 1e6:>9.1f}{each:>9.1f}{after / 1e6:>10.1f}")


async def locked(url: str, user_id: str) -> asyncpg.Connection:
    """Return a connection that keeps a user from everybody until it is closed."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user_id))
    return connection


def settled(server: Server) -> int:
    """Return the memory of a server when it does not change any more."""
    looks = [0, server.resident_bytes()]
    while max(looks[-3:]) - min(looks[-3:]) > SETTLED_BYTES:
        time.sleep(0.5)
        looks.append(server.resident_bytes())
    return looks[-1]


def measure_slope(mixture: "Mixture", server: Server, calls: int) -> float:
    """Return how many megabytes a million calls leave."""
    points: list[tuple[int, int]] = []
    for made in range(CHUNK, calls + CHUNK, CHUNK):
        mixture.make(server, CHUNK)
        points.append((made, settled(server)))
        click.echo(f"{made:>10} calls{points[-1][1] / 1e6:>9.1f} MB")
    # Bytes by call are megabytes by million calls.
    return slope(points)


def measure_left(server: Server, user_id: str) -> float:
    """Return how many bytes a call leaves whose caller leaves it."""
    points: list[tuple[int, int]] = []
    for left in range(1, ROUNDS_LEFT + 1):
        server.shorten_log()
        with callers("leave", server.port, AT_ONCE, user_id):
            pass
        points.append((left * AT_ONCE * CALLS_LEFT, settled(server)))
        click.echo(f"{points[-1][0]:>10} left {points[-1][1] / 1e6:>9.1f} MB")
    return slope(points)


def slope(points: list[tuple[int, int]]) -> float:
    """Return the bytes by call over the second half of the points."""
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
    """Calls of all kinds, some at a time.

    Attributes:
        failed: how many failed that should not have: on a busy machine a few do, and they must not leave anything.
    """

    def __init__(self, program: Path, data: Data) -> None:
        self.failed = 0
        self._program = program
        self._good = WORKLOADS["Mixed"].grpc(data, Random(1))
        self._file = program.with_name("calls")

    def make(self, server: Server, count: int) -> None:
        """Make so many calls.

        Raises:
            click.ClickException: a call was not refused that should have been.

        """
        refused = int(count * REFUSED)
        server.shorten_log()
        self.failed += self._failures(server, islice(self._good, count - refused), count - refused)
        if self._failures(server, REFUSED_CALLS, refused) != refused:
            raise click.ClickException("a call that is wrong was not refused")

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
