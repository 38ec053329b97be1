"""Lets the leader of a PostgreSQL cluster fail under load, again and again, and looks for what is lost.

    python -m benchmarks.failover.trial --patroni .bench/patroni/bin/patroni

Real etcd, Patroni, PostgreSQL (three nodes), HAProxy, two servers and their callers, all on this machine. `etcd` and
`haproxy` must be installed. There is one etcd, which nothing here harms; in earnest it has three members.

Ends with status 1 if an acknowledged order is lost, a call has two orders, a call that was told that nothing was
written has one, a watcher missed an order, or a call met an internal error.
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

Mend = Callable[[], None]
# Does something to a node, and returns what makes it good.
Failure = Callable[[Node], Mend]

CALM_SECONDS = 3
SERVERS = 2
ORDERS = """
SELECT id::text, metadata->>'call' AS call,
       (SELECT count(*) FROM order_items i WHERE i.order_id = o.id) AS items,
       (SELECT count(*) FROM events e WHERE e.aggregate_id = o.id AND e.type = 'CREATED') AS events
FROM orders o
"""


@click.command()
@click.option("--patroni", type=click.Path(exists=True, path_type=Path), required=True, help="Patroni's command.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".bench/failover"), show_default=True)
@click.option("--kills", default=3, show_default=True, help="How often to kill the leader.")
@click.option("--callers", default=8, show_default=True, help="Callers of each kind, with and without request_id.")
@click.option("--asynchronous", is_flag=True, help="Acknowledge commits that only the leader has: some will be lost.")
def main(*, patroni: Path, folder: Path, kills: int, callers: int, asynchronous: bool) -> None:
    """Put the leader through each failure, under load; the folder, which is emptied, then has the logs."""
    for program in ("etcd", "haproxy", "setpriv", "unshare"):
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is not installed")
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
    """Put the leader through the failures, and return what was wrong."""
    async with made as nodes, serving(nodes.url, folder) as ports:
        begun = time.monotonic()
        async with load(ports, repeating=callers, once=callers) as told:
            click.echo(f"{'':16}{'new leader after':>20}{'longest without an order':>28}")
            for words, failure in failures:
                leader, pause = await put_through(failure, nodes, told)
                click.echo(f"{words:16}{leader:18.1f} s{pause:26.1f} s")
        stored = await stored_orders(await nodes.leader())
    click.echo(f"{len(told.acknowledged)} orders acknowledged in {time.monotonic() - begun:.0f} s, {len(stored)} found")
    if told.standstill > 1:
        click.echo(f"the machine stood still for up to {told.standstill:.0f} s: these times are not the cluster's")
    for reason, count in told.failures.most_common():
        click.echo(f"{count:8} x {reason}")
    return compare(told, stored)


async def put_through(failure: Failure, nodes: Cluster, told: Told) -> tuple[float, float]:
    """Let the leader fail, and mend it; return the seconds to a new leader, and the most between two orders."""
    await asyncio.sleep(CALM_SECONDS)
    leader = await nodes.leader()
    begun = time.monotonic()
    mend = await asyncio.to_thread(failure, leader)
    await nodes.leader(other_than=leader)
    led = time.monotonic()
    await until(lambda: told.answered_since(led))
    pause = told.longest_pause_since(begun)
    mend()
    await nodes.whole()
    return led - begun, pause


def kill(node: Node) -> Mend:
    """Kill everything on the node at once."""
    node.stop()
    return node.start


def freeze(node: Node) -> Mend:
    """Stop everything on the node where it is: connections stay, and nothing answers."""
    node.signal(signal.SIGSTOP)
    return lambda: node.signal(signal.SIGCONT)


def hand_over(node: Node) -> Mend:
    """Let the node hand over its lead, as before maintenance."""
    node.order("/switchover", leader=node.name)
    return lambda: None


@asynccontextmanager
async def serving(database_url: str, folder: Path) -> AsyncIterator[Sequence[int]]:
    """Migrate, and run servers until the block ends; yields their ports."""
    command = [sys.executable, "-m", "service"]
    with ExitStack() as stack:
        migration = stack.enter_context(running(folder / "migrate.log", *command, "migrate", DATABASE_URL=database_url))
        if await asyncio.to_thread(migration.wait):
            raise RuntimeError(f"the migration failed: see {folder / 'migrate.log'}")
        ports = free_ports(SERVERS)
        for port in ports:
            serve = (*command, "serve", "--port", str(port))
            stack.enter_context(running(folder / f"server-{port}.log", *serve, DATABASE_URL=database_url))
        await until(lambda: all(map(accepts, ports)))
        yield ports


def accepts(port: int) -> bool:
    """Return whether somebody listens on a port."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


async def stored_orders(leader: Node) -> Sequence[asyncpg.Record]:
    """Return what the leader has of each order."""
    connection = await asyncpg.connect(host="127.0.0.1", port=leader.port, user="postgres", database="postgres")
    rows: Sequence[asyncpg.Record] = await connection.fetch(ORDERS)
    await connection.close()
    return rows


def compare(told: Told, stored: Sequence[asyncpg.Record]) -> Sequence[str]:
    """Return in words what was told and is not so."""
    orders = {row["id"]: row["call"] for row in stored}
    counts = {
        "acknowledged orders are lost": sum(orders.get(order) != call for call, order in told.acknowledged.items()),
        "calls have more than one order": sum(count > 1 for count in Counter(orders.values()).values()),
        "calls were refused and have an order": len(told.refused & set(orders.values())),
        "orders lack an item or their event": sum((row["items"], row["events"]) != (len(ITEMS), 1) for row in stored),
        "orders were not seen, or seen twice, by the watcher": sum(told.seen[order] != 1 for order in orders),
        "calls met an internal error": told.failures["INTERNAL"],
    }
    return [f"{count} {words}" for words, count in counts.items() if count]


if __name__ == "__main__":
    main()
