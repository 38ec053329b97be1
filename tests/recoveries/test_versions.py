"""Every method, and the commands that use the database, on each supported version of PostgreSQL."""

from pathlib import Path

import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow

from service.db.operations.recoverability import SUPPORTED_VERSIONS
from service.devtools.postgres_programs import find_bin_dir, major_version
from tests.recoveries.data import fill, migrate_database, seen
from tests.recoveries.plan import FULL, VERSIONS
from tests.support.databases import NOT_DURABLE, driver_connection
from tests.support.older_postgres import programs_of
from tests.support.own_postgres import own_postgres
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT
from tests.support.processes import run_command
from tests.support.servers import serving_clients
from tests.support.watching import watch_users

COMMANDS = ("gc", "verify-ledger", "purged-users", "restore-events")


@pytest.mark.skipif(not FULL, reason="make recoveries; otherwise, test_upgrades.py calls every method on the oldest")
@pytest.mark.parametrize("major", VERSIONS)
async def test_every_method_and_command_works_on_an_older_version(major: int, tmp_path: Path) -> None:
    with own_postgres(tmp_path / "older", NOT_DURABLE, programs_of(major)) as postgres:
        url = postgres.url
        await migrate_database(url)
        async with driver_connection(url) as connection:
            assert connection.get_server_version().major == major
        async with serving_clients(url) as clients:
            await fill(clients)
            row = UserImportRow(email="ada@example.com", username="ada", password=PASSWORD)
            requests = [users_pb.ImportUsersRequest(config=UserImportConfig()), users_pb.ImportUsersRequest(row=row)]
            await clients.users.ImportUsers(iter(requests))
            # Exports.
            assert await seen(clients)
            async with watch_users(clients, earliest=True) as past, watch_users(clients, now=True) as live:
                assert await past.events(1)
                await live.checkpoint()
                user = await clients.create_user()
                assert [event.user_id for event in await live.events(1)] == [user.id]
        for command in COMMANDS:
            ended = await run_command(command, database_url=url)
            assert (ended.status, ended.stderr) == (0, ""), ended
        report = await run_command("doctor", database_url=url)
        assert report.status == 0, report.stdout
        assert "ok    version       PostgreSQL 15 to 18 are supported\n" in report.stdout


def test_the_versions_of_the_documents_are_those_that_are_tested() -> None:
    newest = major_version(find_bin_dir())
    assert [*SUPPORTED_VERSIONS] == [*VERSIONS, newest]
    words = " ".join((ROOT / "docs/operations/postgresql.md").read_text().split())
    assert "supports PostgreSQL 15, 16, 17 and 18, in any" in words
    assert "every method on 15 whenever the tests run" in words


def test_all_pages_about_operations_are_in_the_index() -> None:
    index = (ROOT / "docs/operations/postgresql.md").read_text()
    for page in (ROOT / "docs/operations").glob("*.md"):
        assert page.name == "postgresql.md" or f"({page.name})" in index, page.name
        tested = "".join(test.read_text() for test in (ROOT / "tests/recoveries").glob("test_*.py"))
        assert "```sh" not in page.read_text() or f'"docs/operations/{page.name}"' in tested, page.name
