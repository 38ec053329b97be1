"""docs/operations/postgresql-upgrade.md, played through: an older PostgreSQL is replaced while orders are placed."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import grpc
import pytest

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.readiness import readiness_problem
from service.db.tables import metadata
from service.devtools.postgres_programs import find_bin_dir, major_version
from tests.recoveries.data import contents, fill, migrate_database, placing_orders, seen
from tests.recoveries.plan import UPGRADES_FROM
from tests.support.clients import Clients
from tests.support.databases import NOT_DURABLE, create_database, driver_connection
from tests.support.dumps import dsn
from tests.support.failures import fails
from tests.support.older_postgres import programs_of
from tests.support.own_postgres import own_postgres
from tests.support.pages import Page, Shell
from tests.support.processes import run_command
from tests.support.servers import serving_clients
from tests.support.watching import committed_event_ids, ids, watch_orders


async def version(url: str) -> int:
    async with driver_connection(url) as connection:
        return int(connection.get_server_version().major)


async def problem_of(url: str) -> str | None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        return await readiness_problem(engine)
    finally:
        await engine.dispose()


def test_every_table_has_a_key_by_which_changes_are_replicated() -> None:
    # Without one, PostgreSQL would refuse changes as soon as the table is published.
    assert all(table.primary_key.columns for table in metadata.tables.values())


async def assert_goes_on(clients: Clients, connection: asyncpg.Connection, order_id: str, old_cursor: str) -> None:
    """New events follow the old ones, and new orders have new numbers."""
    await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))
    expected = await committed_event_ids(connection)
    async with watch_orders(clients, cursor=old_cursor) as stream:
        with fails(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED"):
            await stream.next()
    async with watch_orders(clients, earliest=True) as stream:
        assert ids(await stream.events(len(expected))) == expected
    new_order = await clients.create_order((await clients.create_user()).id)
    numbers = await connection.fetch("SELECT order_number FROM orders WHERE id <> $1", new_order.id)
    assert new_order.order_number not in {number for (number,) in numbers}


async def hold_back_events(url: str, until: AsyncExitStack) -> None:
    """Let no event be written to a database until the stack is closed."""
    connection = await until.enter_async_context(driver_connection(url))
    await connection.execute("BEGIN; LOCK TABLE events IN SHARE MODE")


@pytest.mark.parametrize("major", UPGRADES_FROM)
async def test_a_newer_postgresql_takes_over_by_logical_replication(major: int, shell: Shell, tmp_path: Path) -> None:
    page = Page("docs/operations/postgresql-upgrade.md")
    comparison, late = Page("docs/operations/dump-and-restore.md"), AsyncExitStack()
    with (
        own_postgres(tmp_path / "old", NOT_DURABLE, programs_of(major)) as old,
        own_postgres(tmp_path / "new", NOT_DURABLE) as new,
    ):
        new_url = await create_database(new.url, "shop", template="template0")
        shell.set(DATABASE_URL=dsn(old.url), NEW_URL=dsn(new_url), RESTORED_URL=dsn(new_url))
        await migrate_database(old.url)
        async with driver_connection(old.url) as connection:
            await connection.execute("CREATE ROLE shop LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop")
        await page.run("1. Prepare the old cluster", shell)
        old.start_again()
        async with serving_clients(old.url) as clients:
            await fill(clients)
            await page.run("2. Copy the schema", shell)
            async with placing_orders(clients) as placed:
                await page.run("3. Copy the rows, and follow", shell)
            await hold_back_events(new_url, late)
            await clients.create_order((await clients.create_user()).id)
            visible = await seen(clients)
            async with watch_orders(clients, earliest=True) as stream:
                await stream.events(1)
                cursor = stream.cursor
        stored = await contents(old.url)
        await page.run("4. Stop writing", shell)
        assert "read-only" in (await problem_of(old.url) or "")
        forgotten = await run_command("doctor", database_url=new_url)
        waiting = asyncio.create_task(page.run("5. Wait for the last changes, and copy the sequences", shell))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await late.aclose()
        await waiting
        assert await contents(new_url) == stored
        assert await comparison.run("Compare two databases", shell) == "the same data\n"
        checked = await page.run("6. Switch", shell)
        assert "FAIL" in forgotten.stdout
        assert "order_number_seq would give numbers again" in forgotten.stdout
        assert "the subscription upgrade writes the changes of another database here" in forgotten.stdout
        assert "FAIL" not in checked
        assert "no subscription writes here" in checked
        assert (await version(old.url), await version(new_url)) == (major, major_version(find_bin_dir()))
        async with driver_connection(old.url) as connection:
            assert not await connection.fetch("SELECT FROM pg_replication_slots")
        async with serving_clients(new_url) as clients, driver_connection(new_url) as connection:
            assert await connection.fetchval("SELECT has_table_privilege('shop', 'users', 'SELECT')")
            assert await seen(clients) == visible
            assert {f"order {order_id}" for order_id in placed} <= {name.partition(" of")[0] for name in visible}
            await assert_goes_on(clients, connection, placed[0], cursor)
        await page.run("Back", shell)
        assert await problem_of(old.url) is None
        assert await contents(old.url) == stored
    assert page.unused == set()
