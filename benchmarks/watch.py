"""Measure the latency of events from INSERT to watchers, and the cost of a watcher: `python benchmarks/watch.py`.

PostgreSQL, the server, the watchers and the writer are separate processes that share this machine: with many watchers,
the watchers cause most of the latency, not the server.

Memory is the growth of the server's resident set when the watchers join, so the figure for a single watcher includes
the memory of the first call and of the event feed. CPU is that of the server's process, without PostgreSQL and without
the watchers. The CPU of the idle server is measured first, and subtracted from that of the server that delivers events.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import click
import commerce.orders.v1.order_service_pb2 as pb
import grpc
import uvloop
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from sqlalchemy import event
from sqlalchemy.engine import Engine

from service.config import DatabaseSettings, LogSettings, ServerSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations import migrate
from service.devtools.embedded_postgres import embedded_postgres
from service.observability.logs import configure_logging
from service.rpc.call_context import x_request_id
from service.rpc.transport.event_loop import new_event_loop
from service.server import Server

EVENTS = 50
PAUSE_SECONDS = 0.05
# Two checkpoint intervals: the cost of an idle watcher is that of its checkpoints.
IDLE_SECONDS = 10
# At a higher rate, the latency would only reflect the length of a queue.
DELIVERIES_PER_SECOND = 2000
TIMEOUT_SECONDS = 120
# The service allows 100 concurrent calls on one connection.
WATCHERS_ON_A_CONNECTION = 50
INSERT = """
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
VALUES (gen_random_uuid(), 'order', gen_random_uuid(), 'CREATED', '', now(), '[]', gen_random_uuid(), 'PENDING')
RETURNING id
"""


async def measure(url: str, watchers: int) -> None:
    """Print the latency and the cost with this many watchers."""
    async with part("serve", url) as server:
        port = await line(server)
        async with part("watch", port, str(watchers)) as watching:
            await line(watching)
            await begin(server)
            # The server prints a line once it has measured its idle cost.
            await line(server)
            sent = await write(url, max(PAUSE_SECONDS, watchers / DELIVERIES_PER_SECOND))
            arrivals = json.loads(await rest(watching))
        cost = json.loads(await rest(server))
    latencies = sorted((arrived - sent[event_id]) * 1000 for event_id, arrived in arrivals)
    p50, p99 = statistics.median(latencies), latencies[len(latencies) * 99 // 100]
    click.echo(
        f"{watchers:5} watchers: p50 {p50:7.1f} ms, p99 {p99:7.1f} ms, {len(latencies)} of {watchers * EVENTS}"
        f" deliveries, {cost['statements_per_second']:.1f} statements/s\n"
        f"{'':7}idle: {cost['idle_bytes'] / 1e3 / watchers:.1f} KB of memory for each watcher,"
        f" {cost['idle_cpu'] * 1e3:.1f} ms of CPU per second for all;"
        f" {cost['delivery_cpu'] / len(latencies) * 1e6:.0f} us of CPU for each delivery"
    )


async def write(url: str, pause_seconds: float) -> dict[str, float]:
    """Insert events, one per transaction, and return the time at which each INSERT began."""
    connection = await asyncpg.connect(async_url(url).set(drivername="postgresql").render_as_string())
    sent = {}
    for _ in range(EVENTS):
        started = time.monotonic()
        sent[str(await connection.fetchval(INSERT))] = started
        await asyncio.sleep(pause_seconds)
    await connection.close()
    return sent


async def serve(url: str) -> None:
    """Serve; print the port, then a line once the idle server is measured, and at the end the costs as JSON."""
    configure_logging(load(LogSettings), call_id=x_request_id)
    server = Server(load(ServerSettings, DATABASE_URL=url, port=0))
    await server.start()
    statements: list[str] = []
    event.listen(Engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    alone = resident_bytes()
    say(server.port)
    # A line on standard input means that all watchers have joined.
    await asyncio.to_thread(sys.stdin.readline)
    cpu = time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    idle_cpu, idle_bytes = (time.process_time() - cpu) / IDLE_SECONDS, resident_bytes() - alone
    say("idle")
    statements.clear()
    started, cpu = time.monotonic(), time.process_time()
    await asyncio.to_thread(sys.stdin.read)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    polls = [statement for statement in statements if "waiting_since" in statement]
    cost = {
        "statements_per_second": len(polls) / seconds,
        "idle_bytes": idle_bytes,
        "idle_cpu": idle_cpu,
        "delivery_cpu": cpu - idle_cpu * seconds,
    }
    say(json.dumps(cost))
    await server.stop(grace=1)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def watch(port: str, watchers: int) -> None:
    """Watch; print a line once all watchers have started, and at the end all events with their times of arrival."""
    arrivals: list[tuple[str, float]] = []
    ready, all_arrived = asyncio.Semaphore(0), asyncio.Event()

    async def read(channel: grpc.aio.Channel) -> None:
        async for response in OrderServiceStub(channel).WatchOrders(pb.WatchOrdersRequest(now=True)):
            if response.WhichOneof("content") == "event":
                arrivals.append((response.event.id, time.monotonic()))
                if len(arrivals) == watchers * EVENTS:
                    all_arrived.set()
            else:
                ready.release()

    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        for _ in range(0, watchers, WATCHERS_ON_A_CONNECTION)
    ]
    reading = [asyncio.create_task(read(channels[index % len(channels)])) for index in range(watchers)]
    for _ in reading:
        await ready.acquire()
    say("ready")
    await asyncio.to_thread(sys.stdin.read)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await all_arrived.wait()
    say(json.dumps(arrivals))
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


@asynccontextmanager
async def part(*arguments: str) -> AsyncIterator[Process]:
    """Run a part of the benchmark in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: Process) -> str:
    """Return the next line that a part prints."""
    assert process.stdout, "it is a pipe"
    return (await process.stdout.readline()).decode().strip()


async def begin(process: Process) -> None:
    """Tell a part to start measuring."""
    assert process.stdin, "it is a pipe"
    process.stdin.write(b"\n")
    await process.stdin.drain()


async def rest(process: Process) -> str:
    """Close the standard input of a part, which ends it, and return what it still prints."""
    return (await process.communicate(b""))[0].decode()


def say(what: object) -> None:
    """Print a line without buffering."""
    click.echo(str(what))
    sys.stdout.flush()


@click.command()
@click.option(
    "--watchers",
    type=int,
    multiple=True,
    default=(1, 100, 1000),
    show_default=True,
    help="Number of watchers; may be given several times.",
)
def main(watchers: Sequence[int]) -> None:
    """Measure with each of these numbers of watchers."""
    os.environ["COMMERCE_LOG_LEVEL"] = "error"
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder)) as url:
        asyncio.run(migrated(url))
        for number in watchers:
            asyncio.run(measure(url, number))


async def migrated(url: str) -> None:
    """Migrate the database."""
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    await migrate.upgrade(engine)
    await engine.dispose()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", url]:
            with asyncio.Runner(loop_factory=partial(new_event_loop, "auto")) as runner:
                runner.run(serve(url))
        case ["watch", port, number]:
            uvloop.run(watch(port, int(number)))
        case _:
            main()
