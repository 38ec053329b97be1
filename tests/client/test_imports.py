import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from commerce.client import AsyncClient, Client, CommerceError, Outcome
from commerce.client.errors import UserAlreadyExists
from commerce.client.imports import ImportProgress, RowError
from commerce.client.testing import Service
from commerce.users.v1.user_import_pb2 import UserImportRow

from tests.support.both_clients import Kind, both_clients
from tests.support.databases import Observer, observing
from tests.support.locks import holding
from tests.support.processes import free_port, serving
from tests.support.servers import running_server

ROWS = 2500


def row(number: int, **fields: Any) -> Any:
    return {"email": f"u{number}@example.com", "username": f"user{number}", **fields}


def rows(first: int = 1) -> Iterator[Any]:
    return (row(number) for number in range(first, ROWS + 1))


async def count_users(client: AsyncClient) -> int:
    return (await client.users.list(page_size=1, include_total_size=True).first_page()).total_size or 0


async def test_an_import_goes_on_when_the_server_is_killed_while_it_writes(
    database_url: str, connection: asyncpg.Connection, observer: Observer
) -> None:
    port = free_port()
    reports: list[ImportProgress] = []

    async def rows_later() -> AsyncIterator[Any]:
        for number in range(1, ROWS + 1):
            yield row(number) if number % 2 else UserImportRow(**row(number))

    async with AsyncClient(f"127.0.0.1:{port}") as client:
        async with serving(database_url, port) as server:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("LOCK TABLE users IN EXCLUSIVE MODE")
            importing = asyncio.create_task(client.users.import_(rows_later(), progress=reports.append))
            await observer.until_waiting(1)
            server.kill()
        await transaction.rollback()
        async with serving(database_url, port):
            result = await importing
            assert await count_users(client) == ROWS
            # Once more, without an event loop: nothing changes.
            with Client(f"127.0.0.1:{port}") as blocking:
                again = await asyncio.to_thread(blocking.users.import_, rows(), on_conflict="UPDATE")
    # The transaction of the killed server may still be committed, because nothing tells PostgreSQL to roll it back.
    assert result.created + result.skipped == ROWS
    assert [report.last_row for report in reports] == [1000, 2000, 2500]
    assert again == ImportProgress(skipped=ROWS, last_row=ROWS)


async def test_an_import_that_stopped_says_where_to_continue(client: AsyncClient, service: Service) -> None:
    def rows_until_the_service_stops() -> Iterator[Any]:
        for number in range(1, ROWS + 1):
            if number == 1001:
                service.stop()
            yield row(number)

    with pytest.raises(CommerceError) as failure:
        await client.users.import_(rows_until_the_service_stops(), reconnect_timeout=0.3)
    assert (failure.value.outcome, failure.value.last_committed_row) == (Outcome.WRITTEN, 1000)
    with pytest.raises(CommerceError) as failure, Client(service.address) as blocking:
        await asyncio.to_thread(blocking.users.import_, [row(1)], reconnect_timeout=0.3)
    assert failure.value.last_committed_row == 0
    service.start()
    result = await client.users.import_(rows(), resume_from=1001)
    assert result == ImportProgress(created=ROWS - 1000, last_row=ROWS)
    assert await count_users(client) == ROWS


async def test_rows_that_are_not_imported_are_listed_with_their_numbers(client: AsyncClient) -> None:
    reports: list[ImportProgress] = []
    wrong = [row(number, username="!" if number in {3, 1500} else f"user{number}") for number in range(1, ROWS + 1)]
    result = await client.users.import_(wrong, progress=reports.append)
    assert (result.created, result.failed, result.last_row) == (ROWS - 2, 2, ROWS)
    assert [(failure.row_number, failure.field) for failure in result.failures] == [(3, "username"), (1500, "username")]
    assert [[failure.row_number for failure in report.failures] for report in reports] == [[3], [1500], []]


async def test_a_conflict_stops_an_import_that_asks_for_it(client: AsyncClient, service: Service) -> None:
    await client.users.import_([row(1200)])
    with pytest.raises(UserAlreadyExists) as failure:
        await client.users.import_(rows(), on_conflict="FAIL")
    assert failure.value.last_committed_row == 1199
    assert failure.value.metadata["row_number"] == "1200"
    assert failure.value.outcome is Outcome.WRITTEN
    service.stop()
    with pytest.raises(CommerceError) as stopped:
        await client.users.import_([row(1)], on_conflict="FAIL")
    # Whether the server had read a row is not known, so the call is not repeated.
    assert stopped.value.outcome is Outcome.UNKNOWN
    service.start()


async def test_a_row_that_cannot_be_sent_is_named(client: AsyncClient) -> None:
    wrong: Any
    for wrong, problem in ((row(2, age=3), "UserImportRow has no field 'age'"), ("ada@example.com", "it is a str")):
        with pytest.raises(RowError, match=f"row 2: {problem}") as failure:
            await client.users.import_([row(1), wrong])
        assert failure.value.last_committed_row == 0
    with pytest.raises(ValueError, match="the first row has the number 1"):
        await client.users.import_([], resume_from=0)
    assert await client.users.import_([]) == ImportProgress()


async def test_an_import_whose_client_is_closed_says_how_far_it_is(
    kind: Kind, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running_server(database_url) as server,
        observing(database_url) as observer,
        both_clients(kind, server.port) as both,
    ):
        await both.call(lambda client: client.users.import_([row(1)]))
        async with holding(database_url, "SELECT FROM users FOR UPDATE"):
            importing = asyncio.create_task(
                both.call(lambda client: client.users.import_([row(1, full_name="Ada")], on_conflict="UPDATE"))
            )
            await observer.until_waiting(1)
            await both.call(lambda client: client.close(grace=0.1))
            with pytest.raises(CommerceError, match="the client was closed") as ended:
                await asyncio.wait_for(importing, 5)
    error = ended.value
    assert (error.code.name, error.outcome, error.last_committed_row) == ("CANCELLED", Outcome.UNKNOWN, 0)
    assert "it goes on" not in caplog.text


async def test_an_import_is_not_repeated_by_a_client_that_is_closed(kind: Kind) -> None:
    async with both_clients(kind, free_port()) as both:
        importing = asyncio.create_task(both.call(lambda client: client.users.import_([row(1)])))
        await asyncio.sleep(0.3)
        await both.call(lambda client: client.close())
        with pytest.raises(CommerceError) as ended:
            await asyncio.wait_for(importing, 10)
    assert ended.value.last_committed_row == 0
