"""Make the leader of a PostgreSQL cluster fail repeatedly under load, and check that no acknowledged write is lost.

    python -m benchmarks.failover.trial --patroni .bench/patroni/bin/patroni

Etcd, Patroni, PostgreSQL (three nodes), HAProxy, two servers and their callers all run on this machine. `etcd` and
`haproxy` must be installed. The trial does not make etcd fail, so it runs a single member; in production, run three.

The exit status is 1 if an acknowledged order is lost, a call has two orders, a call that was told that nothing was
written has an order, the watcher missed an order, or a call failed with an internal error.
"""

import asyncio
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import click

from benchmarks.failover.cluster import Cluster, Node, cluster, free_ports, running, until
from benchmarks.failover.load import ITEMS, Told, load
from service.devtools.postgres_programs import find_bin_dir

Repair = Callable[[], None]
# Makes a node fail, and returns a function that repairs it.
Failure = Callable[[Node], Repair]

CALM_SECONDS = 3
SERVERS = 2
ORDERS = """
SELECT id::text, metadata->>'call' AS call,
       (SELECT count(*) FROM order_items i WHERE i.order_id = o.id) AS items,
       (SELECT count(*) FROM events e WHERE e.aggregate_id = o.id AND e.type = 'CREATED') AS events
FROM orders o
"""


@click.command()
@click.option("--patroni", type=click.Path(exists=True, path_type=Path), required=True, help="Patroni's executable.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".bench/failover"),
    show_default=True,
    help="Emptied first.",
)
@click.option("--kills", default=3, show_default=True, help="Number of times to kill the leader.")
@click.option("--callers", default=8, show_default=True, help="Callers of each kind, with and without request_id.")
@click.option(
    "--asynchronous", is_flag=True, help="Acknowledge commits that only the leader has; a failover loses some of them."
)
def main(*, patroni: Path, folder: Path, kills: int, callers: int, asynchronous: bool) -> None:
    """Make the leader fail in each way under load. Data and logs are left in the folder."""
    for program in ("etcd", "haproxy", "setpriv", "unshare"):
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is not installed: install it so that PATH finds it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    folder = folder.resolve()
    nodes = cluster(folder, patroni=patroni.absolute(), bin_dir=find_bin_dir(), synchronous=not asynchronous)
    failures = [("leader killed", kill)] * kills + [("leader frozen", freeze), ("switchover", hand_over)]
    if defects := asyncio.run(trial(nodes, failures, folder, callers)):
        click.echo("\n".join(f"FAILED: {defect}" for defect in defects))
        sys.exit(1)


async def trial(
    made: AbstractAsyncContextManager[Cluster], failures: Sequence[tuple[str, Failure]], folder: Path, callers: int
) -> Sequence[str]:
    """Make the leader fail in each of these ways, and return descriptions of the defects that were found."""
    async with made as nodes, serving(nodes.url, folder) as ports:
        started = time.monotonic()
        async with load(ports, repeating=callers, once=callers) as told:
            click.echo(f"{'':16}{'new leader after':>20}{'longest without an order':>28}")
            for words, failure in failures:
                leader, pause = await fail_over(failure, nodes, told)
                click.echo(f"{words:16}{leader:18.1f} s{pause:26.1f} s")
        stored = await stored_orders(await nodes.leader())
    seconds = time.monotonic() - started
    click.echo(f"{len(told.acknowledged)} orders acknowledged in {seconds:.0f} s, {len(stored)} stored")
    if told.standstill > 1:
        click.echo(f"this process did not run for up to {told.standstill:.0f} s, which the times above include")
    for reason, count in told.failures.most_common():
        click.echo(f"{count:8} x {reason}")
    return compare(told, stored)


async def fail_over(failure: Failure, nodes: Cluster, told: Told) -> tuple[float, float]:
    """Make the leader fail, then repair it.

    Returns:
        the seconds until there was a new leader, and the longest time between two acknowledged orders.

    """
    await asyncio.sleep(CALM_SECONDS)
    leader = await nodes.leader()
    started = time.monotonic()
    repair = await asyncio.to_thread(failure, leader)
    await nodes.leader(other_than=leader)
    led = time.monotonic()
    await until(lambda: told.answered_since(led))
    pause = told.longest_pause_since(started)
    repair()
    await nodes.wait_until_replicating()
    return led - started, pause


def kill(node: Node) -> Repair:
    """Kill every process of the node with SIGKILL."""
    node.stop()
    return node.start


def freeze(node: Node) -> Repair:
    """Suspend every process of the node: its connections stay open, and it answers nothing."""
    node.signal(signal.SIGSTOP)
    return lambda: node.signal(signal.SIGCONT)


def hand_over(node: Node) -> Repair:
    """Switch over from this leader to another node, as before maintenance."""
    node.order("/switchover", leader=node.name)
    return lambda: None


@asynccontextmanager
async def serving(database_url: str, folder: Path) -> AsyncIterator[Sequence[int]]:
    """Migrate the database, run servers until the block ends, and yield their ports."""
    command = [sys.executable, "-m", "service"]
    with ExitStack() as stack:
        migration = stack.enter_context(running(folder / "migrate.log", *command, "migrate", DATABASE_URL=database_url))
        if await asyncio.to_thread(migration.wait):
            raise RuntimeError(f"the migration failed; its log is {folder / 'migrate.log'}")
        ports = free_ports(SERVERS)
        for port in ports:
            serve = (*command, "serve", "--port", str(port))
            stack.enter_context(running(folder / f"server-{port}.log", *serve, DATABASE_URL=database_url))
        await until(lambda: all(map(accepts, ports)))
        yield ports


def accepts(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


async def stored_orders(leader: Node) -> Sequence[asyncpg.Record]:
    """Return each order on the leader, with its call and the number of its items and CREATED events."""
    connection = await asyncpg.connect(host="127.0.0.1", port=leader.port, user="postgres", database="postgres")
    rows: Sequence[asyncpg.Record] = await connection.fetch(ORDERS)
    await connection.close()
    return rows


def compare(told: Told, stored: Sequence[asyncpg.Record]) -> Sequence[str]:
    """Return a description of each way in which the database contradicts what callers and the watcher received."""
    orders = {row["id"]: row["call"] for row in stored}
    counts = {
        "acknowledged orders are lost": sum(orders.get(order) != call for call, order in told.acknowledged.items()),
        "calls have more than one order": sum(count > 1 for count in Counter(orders.values()).values()),
        "calls were refused and have an order": len(told.refused & set(orders.values())),
        "orders lack an item or their event": sum((row["items"], row["events"]) != (len(ITEMS), 1) for row in stored),
        "orders were not seen exactly once by the watcher": sum(told.seen[order] != 1 for order in orders),
        "calls failed with an internal error": told.failures["INTERNAL"],
    }
    return [f"{count} {words}" for words, count in counts.items() if count]


if __name__ == "__main__":
    main()
