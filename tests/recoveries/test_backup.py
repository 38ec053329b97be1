"""docs/operations/backup.md, played through: a base backup, a mistake, and the recovery to the moment before it."""

from pathlib import Path
from typing import NamedTuple

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order

from tests.recoveries.data import contents, fill, migrate_database, placing_orders, seen, without
from tests.recoveries.plan import FULL
from tests.support.clients import Clients
from tests.support.databases import NOT_DURABLE, driver_connection
from tests.support.dumps import dsn
from tests.support.failures import fails
from tests.support.own_postgres import OwnPostgres, own_postgres
from tests.support.pages import Page, Shell
from tests.support.paths import ROOT
from tests.support.processes import run_command
from tests.support.servers import serving_clients
from tests.support.watching import committed_event_ids, ids, watch_orders

DOCUMENT = "docs/operations/backup.md"
TO_A_NAME = "recovery_target_name = 'before-the-change'"
TO_A_TIME = "recovery_target_time = '2026-11-30 12:00:00+00'"


class Moment(NamedTuple):
    """What there was at the moment to which the database is restored."""

    time: str
    stored: dict[str, tuple[int, int]]
    visible: dict[str, bytes]
    order: Order
    cursor: str
    # Created before, and purged after the moment.
    purged_id: str


class Lost(NamedTuple):
    """What was created after that moment.

    Attributes:
        number: the last one that the sequence of order numbers gave.
    """

    order: Order
    cursor: str
    number: int


async def last_cursor(clients: Clients) -> str:
    """Create an order, and return the cursor of its event."""
    user = await clients.create_user()
    async with watch_orders(clients, now=True) as stream:
        await stream.checkpoint()
        order = await clients.create_order(user.id)
        while True:
            response = await stream.next()
            if response.event.order_id == order.id:
                return str(response.cursor)


async def back_up(clients: Clients, postgres: OwnPostgres, page: Page, shell: Shell) -> Moment:
    """Take a base backup, and name a moment after it."""
    await fill(clients)
    purged = await clients.create_user()
    order = await clients.create_order((await clients.create_user()).id)
    # Some are in the files of the backup, some only in the WAL.
    async with placing_orders(clients):
        await page.run("Take a base backup", shell)
    cursor = await last_cursor(clients)
    stored, visible = await contents(postgres.url), await seen(clients)
    await page.run("Name a moment", shell)
    async with driver_connection(postgres.url) as connection:
        time = await connection.fetchval("SELECT clock_timestamp()::text")
    return Moment(time, stored, visible, order, cursor, purged.id)


async def make_a_mistake(clients: Clients, postgres: OwnPostgres, moment: Moment) -> Lost:
    """Make changes that are regular, and some that are not."""
    await clients.users.PurgeUser(users_pb.PurgeUserRequest(id=moment.purged_id))
    async with driver_connection(postgres.url) as connection:
        # More numbers than PostgreSQL itself skips after a recovery.
        await connection.execute("SELECT nextval('order_number_seq') FROM generate_series(1, 100)")
        cursor = await last_cursor(clients)
        order = await clients.create_order(moment.order.user_id)
        await connection.execute("UPDATE users SET full_name = ''")
        await connection.execute("DELETE FROM order_notes")
        number = await connection.fetchval("SELECT last_value FROM order_number_seq")
    return Lost(order, cursor, number)


async def assert_goes_on(clients: Clients, postgres: OwnPostgres, moment: Moment, lost: Lost) -> None:
    """The restored database has all from before the moment, nothing from after it, and what follows fits both."""
    found = await seen(clients)
    assert found == without(moment.visible, moment.purged_id)
    assert not any(lost.order.id in name for name in found)
    new = await clients.create_order(moment.order.user_id)
    assert int(new.order_number[4:]) > lost.number
    await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=moment.order.id))
    async with driver_connection(postgres.url) as connection:
        all_ids = await committed_event_ids(connection)
    async with watch_orders(clients, cursor=moment.cursor) as stream:
        assert ids(await stream.events(2)) == all_ids[-2:]
    async with watch_orders(clients, cursor=lost.cursor) as stream:
        with fails(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED"):
            await stream.next()


@pytest.mark.parametrize("target", ["name", *(["time"] if FULL else [])])
async def test_a_database_is_restored_to_the_moment_before_a_mistake(target: str, shell: Shell, tmp_path: Path) -> None:
    page = Page(DOCUMENT)
    folder = tmp_path / "restored"
    for new in (folder, tmp_path / "archive"):
        new.mkdir(mode=0o700)
    shell.set(ARCHIVE=str(tmp_path / "archive"), BACKUP=str(tmp_path / "backup"), RESTORED=str(folder / "pgdata"))
    with own_postgres(tmp_path / "primary", NOT_DURABLE) as primary:
        shell.set(DATABASE_URL=dsn(primary.url))
        await migrate_database(primary.url)
        assert "archive_mode is off" in (await run_command("doctor", database_url=primary.url)).stdout
        await page.run("Archive the WAL", shell)
        primary.start_again()
        async with serving_clients(primary.url) as clients:
            moment = await back_up(clients, primary, page, shell)
            lost = await make_a_mistake(clients, primary, moment)
        assert await contents(primary.url) != moment.stored
        await page.run("Save what the backup lacks", shell)

    restore, wait = page.commands("Restore")
    assert TO_A_NAME in restore
    assert f"`{TO_A_TIME}`" in (ROOT / DOCUMENT).read_text()
    to_the_time = TO_A_TIME.replace("2026-11-30 12:00:00+00", moment.time)
    await shell.run(restore.replace(TO_A_NAME, to_the_time) if target == "time" else restore)
    with own_postgres(folder, NOT_DURABLE) as restored:
        shell.set(DATABASE_URL=dsn(restored.url))
        await shell.run(wait)
        assert await contents(restored.url) == moment.stored
        checked = await page.run("After the restore", shell)
        assert "\npurged 1 of " in checked
        assert "PostgreSQL archives its WAL" in checked
        assert page.unused == set()
        async with serving_clients(restored.url) as clients:
            await assert_goes_on(clients, restored, moment, lost)
