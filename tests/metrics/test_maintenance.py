"""What `commerce gc` and the check of the ledger have done is on the page of every server."""

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from service.db.operations.maintenance_runs import record_run
from service.server import Server
from tests.support.clients import connect
from tests.support.databases import driver_connection
from tests.support.metrics_pages import Page, read_page
from tests.support.processes import run_command
from tests.support.servers import running_server
from tests.support.waiting import eventually


async def page_with(server: Server, name: str) -> Page:
    """Return the page as soon as it has a metric: what is in the database is read after the start."""

    async def found() -> Page | None:
        page = await read_page(server.metrics_port)
        return page if page.values(name) else None

    page: Page = await eventually(found)
    return page


async def test_a_server_shows_the_runs_and_the_last_success_of_each_part(database_url: str) -> None:
    engine = create_async_engine(database_url)
    for succeeded, handled in ((True, 5), (True, 7), (False, 1)):
        await record_run(engine, "events", succeeded=succeeded, handled=handled)
    await record_run(engine, "credit_holds", succeeded=False, handled=0)
    await engine.dispose()
    async with running_server(database_url, metrics_port=0) as server:
        page = await page_with(server, "commerce_gc_runs_total")
    assert page.values("commerce_gc_runs_total", part="events") == {("success",): 2, ("failure",): 1}
    assert page.values("commerce_gc_handled_total") == {("events",): 13, ("credit_holds",): 0}
    last = page.values("commerce_gc_last_success_timestamp_seconds")
    assert last[("events",)] > 1_700_000_000
    assert last[("credit_holds",)] == 0
    assert not page.values("commerce_ledger_consistent")


@pytest.mark.parametrize("consistent", [True, False])
async def test_a_server_shows_whether_the_last_check_of_the_ledger_found_a_difference(
    database_url: str, *, consistent: bool
) -> None:
    async with running_server(database_url) as server, connect(server.port) as clients:
        user = await clients.create_user()
    engine = create_async_engine(database_url)
    # The check before had the other result.
    await record_run(engine, "ledger", succeeded=not consistent, handled=0)
    await engine.dispose()
    if not consistent:
        async with driver_connection(database_url) as connection:
            await connection.execute(
                "INSERT INTO credit_accounts (user_id, currency, available, held) VALUES ($1, 'EUR', 5, 0)", user.id
            )
    finished = await run_command("verify-ledger", "--record", database_url=database_url)
    assert finished.status == (0 if consistent else 1), finished
    assert ("5.0000 stored" in finished.stderr) is not consistent
    async with running_server(database_url, metrics_port=0) as server:
        page = await page_with(server, "commerce_ledger_consistent")
    assert page.values("commerce_ledger_consistent") == {(): int(consistent)}
    assert page.total("commerce_ledger_checked_timestamp_seconds") > 1_700_000_000
    # It is no part of `commerce gc`.
    assert not page.values("commerce_gc_runs_total")


async def test_without_its_option_the_check_of_the_ledger_changes_nothing(database_url: str) -> None:
    assert (await run_command("verify-ledger", database_url=database_url)).status == 0
    async with driver_connection(database_url) as connection:
        assert not await connection.fetch("SELECT FROM maintenance_runs")
