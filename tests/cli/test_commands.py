"""The `commerce` commands other than `serve`; what `migrate` does to a schema is tested with the migrations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cli.main import main
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.migrate import MigrationError, head, upgrade
from service.db.operations.retention import BATCH, delete_expired_request_ids
from tests.support.databases import driver_connection
from tests.support.processes import CommandResult, run_command


def assert_one_line(finished: CommandResult, words: str) -> None:
    assert finished.status == 1, finished
    assert finished.stderr.startswith("Error: "), finished
    assert finished.stderr.count("\n") == 1, finished
    assert words in finished.stderr


def test_the_commands_are_those_that_the_documents_name() -> None:
    assert sorted(main.commands) == [
        "export-orders",
        "gc",
        "import-users",
        "migrate",
        "relay",
        "serve",
        "verify-ledger",
        "version",
    ]


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", ["", *sorted(main.commands)])
def test_each_command_explains_itself(name: str, option: str) -> None:
    result = CliRunner().invoke(main, [*name.split(), option], terminal_width=200)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    command = main.commands[name] if name else main
    assert (command.help or "").split("\n")[0] in result.output
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in result.output
            assert (parameter.help or "no help") in result.output


@pytest.mark.parametrize("arguments", [["fly"], ["serve", "--fast"], ["serve", "--port", "many"], ["gc", "now"]])
def test_unknown_arguments_are_refused_with_the_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_the_version_names_the_schema() -> None:
    result = CliRunner().invoke(main, ["version"])
    assert result.exit_code == 0
    assert result.output.startswith(f"commerce {version('commerce-service')}, schema {head()}, Python 3.")


async def test_the_module_is_the_command() -> None:
    finished = await run_command("version")
    assert (finished.status, finished.stderr) == (0, "")
    assert finished.stdout.startswith("commerce ")


async def insert_request_ids(url: str, count: int, age: str) -> None:
    async with driver_connection(url) as connection:
        await connection.execute(
            "INSERT INTO request_ids (caller, method, request_id, body_digest, response, create_time)"
            " SELECT 'anonymous', '/test', gen_random_uuid(), '', '', now() - $2::text::interval"
            " FROM generate_series(1, $1)",
            count,
            age,
        )


async def remaining(url: str) -> int:
    async with driver_connection(url) as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM request_ids")
        return count


async def test_gc_deletes_answers_that_are_older_than_a_day_and_no_others(database_url: str) -> None:
    expired = 2 * BATCH + 1
    await insert_request_ids(database_url, expired, "24 hours 1 second")
    await insert_request_ids(database_url, 3, "23 hours 59 minutes")
    finished = await run_command("gc", database_url=database_url)
    assert (finished.status, finished.stderr) == (0, "")
    assert f"deleted {expired} expired request ids\n" in finished.stdout
    assert await remaining(database_url) == 3


async def test_concurrent_runs_of_gc_share_the_work(database_url: str) -> None:
    await insert_request_ids(database_url, 3 * BATCH, "25 hours")
    await insert_request_ids(database_url, 3, "1 second")
    async with open_engine(database_url) as first, open_engine(database_url) as second:
        deleted = await asyncio.gather(delete_expired_request_ids(first), delete_expired_request_ids(second))
    assert sum(deleted) == 3 * BATCH
    assert await remaining(database_url) == 3


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        yield engine
    finally:
        await engine.dispose()


async def test_a_database_out_of_reach_is_one_line() -> None:
    finished = await run_command("gc", database_url="postgresql://ada:secret@127.0.0.1:1/shop")
    assert_one_line(finished, "the database cannot be reached")
    assert "secret" not in finished.stderr


async def test_gc_without_a_schema_is_one_line_that_says_what_to_run(empty_database_url: str) -> None:
    assert_one_line(await run_command("gc", database_url=empty_database_url), "run `commerce migrate`")


async def test_migrate_goes_to_a_revision_that_there_is(empty_database_url: str) -> None:
    finished = await run_command("migrate", "0001", database_url=empty_database_url)
    assert (finished.status, finished.stdout) == (0, "migrated\n"), finished
    async with driver_connection(empty_database_url) as connection:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0001"


async def test_a_revision_that_there_is_not_is_one_line(empty_database_url: str) -> None:
    assert_one_line(
        await run_command("migrate", "of_another_day", database_url=empty_database_url), "no migration of_another_day"
    )


@pytest.mark.parametrize("revision", ["of_another_day", "base", "", "+1", "-1", "0001:head"])
async def test_no_migration_runs_to_an_invalid_revision(empty_database_url: str, revision: str) -> None:
    async with open_engine(empty_database_url) as engine:
        with pytest.raises(MigrationError, match="there is no migration"):
            await upgrade(engine, revision)
    async with driver_connection(empty_database_url) as connection:
        assert not await connection.fetch("SELECT FROM pg_tables WHERE schemaname = 'public'")
