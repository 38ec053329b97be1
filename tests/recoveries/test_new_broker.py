"""docs/operations/new-broker.md, played through with two NATS servers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb

from tests.support.brokers import Broker, arrived, written
from tests.support.dumps import dsn
from tests.support.pages import Page, Shell
from tests.support.processes import Process, run_command, running_command, running_program
from tests.support.servers import serving_clients
from tests.support.waiting import eventually


@asynccontextmanager
async def running_block(commands: str, shell: Shell) -> AsyncIterator[Process]:
    """Run a block that goes on until it is stopped."""
    # `exec`, so that the program itself is stopped, and not only the shell.
    async with running_program("bash", "-euc", f"exec {commands}", environment=shell.environment) as process:
        yield process


async def positions(connection: asyncpg.Connection) -> set[str]:
    return {name for (name,) in await connection.fetch("SELECT name FROM relay_cursors")}


async def test_a_new_broker_gets_all_events_and_the_old_relay_is_retired(
    database_url: str, connection: asyncpg.Connection, shell: Shell, tmp_path: Path
) -> None:
    page = Page("docs/operations/new-broker.md")
    old, new, third = (Broker(tmp_path / name) for name in ("old", "new", "third"))
    shell.set(DATABASE_URL=dsn(database_url), NEW_NATS_URL=new.url)
    start, has_caught_up = page.commands("Events for a new broker")
    async with serving_clients(database_url) as clients, old.up(), new.up(), third.up():
        async with running_command("relay", "--nats-url", old.url, database_url=database_url):
            purged = await clients.create_user()
            user = await clients.create_user()
            orders = [await clients.create_order(user.id) for _ in range(20)]
            await clients.users.PurgeUser(users_pb.PurgeUserRequest(id=purged.id))
            await old.messages(await connection.fetchval("SELECT count(*) FROM events"))
            async with running_block(start, shell) as relay:
                await relay.until_written("relaying")
                for order in orders:
                    await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
                everything = await written(connection)
                messages = await new.messages(sum(map(len, everything.values())))
                assert arrived(messages) == everything

                async def caught_up() -> bool:
                    return await shell.run(has_caught_up) == "new-broker|t\n"

                await eventually(caught_up)
                assert (await relay.terminate()).status == 0
        # Events that the old relay has not published are stored.
        assert await positions(connection) == {"nats", "new-broker"}
        await page.run("Retire the old relay", shell)
        assert await positions(connection) == {"new-broker"}

        # Those from a moment on again: to one more broker, because a stream drops what it has just stored.
        moment = await connection.fetchval("SELECT clock_timestamp()::text")
        again = [(await clients.create_order(user.id)).id for _ in range(5)]
        async with running_block(start, shell):
            await eventually(caught_up)
        shell.set(SINCE=moment, NEW_NATS_URL=third.url)
        await page.run("Publish events again", shell)
        async with running_block(start, shell):
            messages = await third.messages(5)
            await eventually(caught_up)
        assert [json.loads(message.data)["partitionkey"] for message in messages] == again
        assert await third.count() == 5
    assert page.unused == set()


async def test_retention_keeps_events_for_a_relay_until_it_is_retired(
    database_url: str, connection: asyncpg.Connection, shell: Shell
) -> None:
    page = Page("docs/operations/new-broker.md")
    shell.set(DATABASE_URL=dsn(database_url))
    begins = "INSERT INTO relay_cursors (name, xid, position) SELECT 'nats', xid, position FROM swept_events"
    await connection.execute(begins)
    async with serving_clients(database_url) as clients:
        await clients.create_user()
    await connection.execute("ALTER TABLE events DISABLE TRIGGER USER; UPDATE events SET create_time = '2020-01-01'")
    assert "deleted 0 expired events" in (await run_command("gc", database_url=database_url)).stdout
    await page.run("Retire the old relay", shell)
    assert "deleted 1 expired events" in (await run_command("gc", database_url=database_url)).stdout
