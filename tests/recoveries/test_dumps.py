"""docs/operations/dump-and-restore.md, played through with a cluster that has counted fewer transactions."""

from pathlib import Path

import pytest

from service.server import StartError
from tests.recoveries.data import contents, fill, seen
from tests.support.databases import NOT_DURABLE, create_database, driver_connection
from tests.support.dumps import dsn
from tests.support.own_postgres import own_postgres
from tests.support.pages import Page, Shell
from tests.support.servers import OwnServer, running_server, serving_clients
from tests.support.watching import committed_event_ids, ids, watch_orders

# So that the cluster of the dump has counted more transactions than a new one.
ADVANCE = "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
CHANGED = {"swept_events"}


async def test_a_dump_is_restored_into_a_younger_cluster(
    own: OwnServer, database_url: str, shell: Shell, tmp_path: Path
) -> None:
    page = Page("docs/operations/dump-and-restore.md")
    await own.connection.execute(ADVANCE)
    await fill(own.clients)
    stored, visible = await own.contents(), await seen(own.clients)
    shell.set(DATABASE_URL=dsn(own.database_url))
    await page.run("Dump", shell)
    with own_postgres(tmp_path / "young", NOT_DURABLE) as young:
        url = await create_database(young.url, "shop", template="template0")
        shell.set(RESTORED_URL=dsn(url))
        restore, restore_events, check = page.commands("Restore")
        await shell.run(restore)
        assert await contents(url) == stored
        (compare,) = page.commands("Compare two databases")
        assert await shell.run(compare) == "the same data\n"
        with pytest.raises(StartError, match="restore-events"):
            async with running_server(url):
                pass
        await shell.run(restore_events)
        await shell.run(check)
        after = await contents(url)
        assert {table for table in after if after[table] != stored[table]} == CHANGED
        with pytest.raises(AssertionError, match=r"< swept_events\|1\|"):
            await shell.run(compare)
        async with serving_clients(url) as clients, driver_connection(url) as connection:
            assert await seen(clients) == visible
            order = await clients.create_order((await clients.create_user()).id)
            expected = await committed_event_ids(connection)
            async with watch_orders(clients, earliest=True) as stream:
                events = await stream.events(len(expected))
        assert ids(events) == expected
        assert events[-1].order_id == order.id
    # Into a database that has all migrations.
    shell.set(RESTORED_URL=dsn(database_url))
    await page.run("Restore the data alone", shell)
    after = await contents(database_url)
    assert {table for table in after if after[table] != stored[table]} == CHANGED
    assert page.unused == set()
