"""What `commerce gc` has done is on the page of every server, because it does not run when the page is read."""

from sqlalchemy.ext.asyncio import create_async_engine

from service.db.operations.maintenance_runs import record_run
from tests.support.metrics_pages import read_page
from tests.support.servers import running_server
from tests.support.waiting import eventually


async def test_a_server_shows_the_runs_and_the_last_success_of_each_part(database_url: str) -> None:
    engine = create_async_engine(database_url)
    for succeeded, handled in ((True, 5), (True, 7), (False, 1)):
        await record_run(engine, "events", succeeded=succeeded, handled=handled)
    await record_run(engine, "credit_holds", succeeded=False, handled=0)
    await engine.dispose()
    async with running_server(database_url, metrics_port=0) as server:

        async def found() -> bool:
            return bool((await read_page(server.metrics_port)).total("commerce_gc_runs_total"))

        await eventually(found)
        page = await read_page(server.metrics_port)
    assert page.values("commerce_gc_runs_total", part="events") == {("success",): 2, ("failure",): 1}
    assert page.values("commerce_gc_handled_total") == {("events",): 13, ("credit_holds",): 0}
    last = page.values("commerce_gc_last_success_timestamp_seconds")
    assert last[("events",)] > 1_700_000_000
    assert last[("credit_holds",)] == 0
