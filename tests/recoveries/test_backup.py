"""docs/operations/backup.md, played through: a base backup, a mistake, and the recovery to the moment before it."""

from pathlib import Path

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest

from tests.recoveries.data import contents, fill, migrate_database, placing_orders, seen, without
from tests.recoveries.plan import FULL
from tests.support.clients import Clients
from tests.support.databases import NOT_DURABLE, driver_connection
from tests.support.dumps import dsn
from tests.support.failures import fails
from tests.support.own_postgres import own_postgres
from tests.support.pages import Page, Shell
from tests.support.paths import ROOT
from tests.support.processes import run_command
from tests.support.servers import serving_clients
from tests.support.watching import committed_event_ids, ids, watch_orders

TO_A_NAME = "recovery_target_name = 'before-the-change'"


async def last_cursor(clients: Clients) -> str:
    """Return the cursor of the newest event of an order."""
    user = await clients.create_user()
    async with watch_orders(clients, now=True) as stream:
        await stream.checkpoint()
        order = await clients.create_order(user.id)
        while True:
            response = await stream.next()
            if response.event.order_id == order.id:
                return str(response.cursor)


@pytest.mark.parametrize("target", ["name", *(["time"] if FULL else [])])
async def test_a_database_is_restored_to_the_moment_before_a_mistake(target: str, shell: Shell, tmp_path: Path) -> None:
    page = Page("docs/operations/backup.md")
    restored_folder = tmp_path / "restored"
    restored_folder.mkdir(mode=0o700)
    (tmp_path / "archive").mkdir()
    shell.set(
        ARCHIVE=str(tmp_path / "archive"), BACKUP=str(tmp_path / "backup"), RESTORED=str(restored_folder / "pgdata")
    )
    with own_postgres(tmp_path / "primary", NOT_DURABLE) as primary:
        shell.set(DATABASE_URL=dsn(primary.url))
        await migrate_database(primary.url)
        assert "archive_mode is off" in (await run_command("doctor", database_url=primary.url)).stdout
        await page.run("Archive the WAL", shell)
        primary.start_again()
        async with serving_clients(primary.url) as clients:
            await fill(clients)
            purged = await clients.create_user()
            order = await clients.create_order((await clients.create_user()).id)
            # Some are in the files of the backup, some only in the WAL.
            async with placing_orders(clients):
                await page.run("Take a base backup", shell)
            kept_cursor = await last_cursor(clients)
            stored, visible = await contents(primary.url), await seen(clients)
            await page.run("Name a moment", shell)
            async with driver_connection(primary.url) as connection:
                moment = await connection.fetchval("SELECT clock_timestamp()::text")
                await clients.users.PurgeUser(users_pb.PurgeUserRequest(id=purged.id))
                await connection.execute("SELECT nextval('order_number_seq') FROM generate_series(1, 100)")
                lost_cursor = await last_cursor(clients)
                lost_order = await clients.create_order((await clients.create_user()).id)
                # The mistake.
                await connection.execute("UPDATE users SET full_name = ''")
                await connection.execute("DELETE FROM order_notes")
        assert await contents(primary.url) != stored
        await page.run("Save what the backup lacks", shell)
        assert purged.id in (shell.folder / "purged-users").read_text()

    restore, wait = page.commands("Restore")
    assert TO_A_NAME in restore
    assert "`recovery_target_time = '2026-11-30 12:00:00+00'`" in (ROOT / "docs/operations/backup.md").read_text()
    await shell.run(restore.replace(TO_A_NAME, f"recovery_target_time = '{moment}'") if target == "time" else restore)
    with own_postgres(restored_folder, NOT_DURABLE) as restored:
        shell.set(DATABASE_URL=dsn(restored.url))
        await shell.run(wait)
        assert await contents(restored.url) == stored
        checked = await page.run("After the restore", shell)
        assert "\npurged 1 of " in checked
        assert "PostgreSQL archives its WAL" in checked
        assert page.unused == set()
        async with serving_clients(restored.url) as clients, driver_connection(restored.url) as connection:
            found = await seen(clients)
            assert found == without(visible, purged.id)
            assert not any(lost_order.id in name for name in found)
            new = await clients.create_order(order.user_id)
            assert int(new.order_number[4:]) > int(lost_order.order_number[4:])
            await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
            all_ids = await committed_event_ids(connection)
            async with watch_orders(clients, cursor=kept_cursor) as stream:
                assert ids(await stream.events(2)) == all_ids[-2:]
            async with watch_orders(clients, cursor=lost_cursor) as stream:
                with fails(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED"):
                    await stream.next()
