"""The `commerce` commands other than `serve`; what `migrate` does to a schema is tested with the migrations."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from tests.support.processes import COMMAND, CommandResult, run_command, running_command, running_program
from tests.support.waiting import eventually


def assert_one_line(finished: CommandResult, words: str) -> None:
    assert finished.status == 1, finished
    assert finished.stderr.startswith("Error: "), finished
    assert finished.stderr.count("\n") == 1, finished
    assert words in finished.stderr


def test_the_commands_are_those_that_the_documents_name() -> None:
    assert sorted(main.commands) == [
        "config",
        "debug",
        "doctor",
        "export-orders",
        "gc",
        "health",
        "import-users",
        "keys",
        "migrate",
        "policy",
        "purge-again",
        "purged-users",
        "relay",
        "restore-events",
        "serve",
        "serve-tests",
        "verify-ledger",
        "version",
        "worker",
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


def test_the_option_prints_the_version_too() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"commerce {version('commerce-service')}\n")


@pytest.mark.parametrize("program", [COMMAND, ()], ids=["started", "copied"])
async def test_the_module_is_the_command(program: tuple[str, ...]) -> None:
    wrong = await run_command("versions", program=program)
    assert (wrong.status, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("Usage: python -m service [OPTIONS] COMMAND [ARGS]...")
    finished = await run_command("version", program=program)
    assert (finished.status, finished.stderr) == (0, "")
    assert finished.stdout.startswith("commerce ")


async def test_help_and_completion_import_no_implementation() -> None:
    async with running_program(sys.executable, "-X", "importtime", "-m", "service", "--version") as process:
        finished = await process.end()
    assert finished.status == 0
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert "service.cli.main" in imported
    packages = {name.partition(".")[0] for name in imported}
    assert not packages & {"alembic", "asyncpg", "google", "grpc", "pydantic", "sqlalchemy", "structlog", "uvloop"}
    assert {name for name in imported if name.startswith("service.")} <= {
        "service.__main__",
        "service.cli",
        "service.cli.debug_commands",
        "service.cli.main",
    }


async def test_migrating_loads_no_grpc_and_serving_no_alembic() -> None:
    script = (
        "import sys, service.cli.migrate; print('grpc' in sys.modules, 'alembic' in sys.modules)\n"
        "import service.server; print('grpc' in sys.modules, 'alembic' in sys.modules)"
    )
    async with running_program(sys.executable, "-c", script) as process:
        finished = await process.end()
    assert (finished.stdout, finished.stderr) == ("False False\nTrue False\n", "")


@pytest.mark.parametrize("library", ["_pydantic_core", "cygrpc", "asyncpg"])
async def test_an_interrupt_while_modules_are_imported_ends_silently(library: str) -> None:
    async with running_command("gc", program=COMMAND, database_url="postgresql://ada@127.0.0.1:1/shop") as process:
        maps = Path(f"/proc/{process.pid}/maps")
        await eventually(lambda: library in maps.read_text())
        process.send(signal.SIGINT)
        finished = await process.end()
    assert (finished.status, finished.stdout, finished.stderr) == (-signal.SIGINT, "", "")


# A server that is starting stops as one that serves does (tests/process/test_lifecycle.py).
@pytest.mark.parametrize("arguments", [("gc",), ("migrate",)], ids=" ".join)
async def test_an_interrupt_of_a_command_that_waits_for_the_database_is_one_word(arguments: tuple[str, ...]) -> None:
    connected = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        url = f"postgresql://ada@127.0.0.1:{port}/shop"
        async with running_command(*arguments, database_url=url, db_connect_timeout=600) as process:
            await eventually(connected.is_set)
            process.send(signal.SIGINT)
            finished = await process.end()
    assert (finished.status, finished.stdout, finished.stderr) == (1, "", "\nAborted!\n")


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--dev"), ("relay",)], ids=" ".join)
async def test_all_wrong_settings_of_a_command_are_one_line(arguments: tuple[str, ...]) -> None:
    wrong: dict[str, Any] = {"log_level": "loud", "db_pool_size": 0, "db_connect_timeout": "soon"}
    finished = await run_command(*arguments, **wrong)
    assert_one_line(finished, "COMMERCE_LOG_LEVEL is wrong")
    assert all(f"COMMERCE_{name}".upper() in finished.stderr for name in wrong)
    assert finished.stderr.count("COMMERCE_LOG_LEVEL") == 1


@pytest.mark.parametrize("command", ["gc", "migrate"])
async def test_a_variable_that_is_no_setting_is_warned_of(database_url: str, command: str) -> None:
    finished = await run_command(command, database_url=database_url, db_pol_size=1)
    assert finished.status == 0
    assert "COMMERCE_DB_POL_SIZE is ignored: there is no setting of this name; is it COMMERCE_DB_POOL_SIZE?" in (
        finished.stderr
    )


@pytest.mark.parametrize(
    ("command", "missing", "wrong"),
    [("relay", "COMMERCE_NATS_URL is not set", "nat_url"), ("gc", "DATABASE_URL is not set", "batched_log_line")],
)
async def test_a_variable_that_is_no_setting_is_warned_of_although_another_is_missing(
    command: str, missing: str, wrong: str
) -> None:
    settings: dict[str, Any] = {wrong: "x"}
    finished = await run_command(command, **settings)
    assert (finished.status, missing in finished.stderr) == (1, True)
    assert f"COMMERCE_{wrong.upper()} is ignored: there is no setting of this name; is it " in finished.stderr


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
    async with driver_connection(database_url) as connection:
        runs = {row["part"]: row for row in await connection.fetch("SELECT * FROM maintenance_runs")}
    assert {(run["successes"], run["failures"]) for run in runs.values()} == {(1, 0)}
    assert {part: run["handled"] for part, run in runs.items() if run["handled"]} == {"request_ids": expired}


async def test_gc_deletes_attempts_to_sign_in_that_no_longer_count_and_no_others(database_url: str) -> None:
    old = 2 * BATCH + 1
    async with driver_connection(database_url) as connection:
        # Slot by slot an old and a new one, so that no batch has only old ones.
        await connection.execute(
            "INSERT INTO sign_in_attempts SELECT n, 1, clock_timestamp() - interval '1 day',"
            " clock_timestamp() + CASE n % 2 WHEN 0 THEN interval '-1 second' ELSE interval '1 hour' END"
            " FROM generate_series(0, 2 * $1::int - 1) AS n",
            old,
        )
    finished = await run_command("gc", database_url=database_url)
    assert (finished.status, finished.stderr) == (0, "")
    assert f"deleted {old} old counts of attempts to sign in\n" in finished.stdout
    async with driver_connection(database_url) as connection:
        left = await connection.fetchrow("SELECT count(*), count(*) FILTER (WHERE slot % 2 = 1) FROM sign_in_attempts")
    assert tuple(left) == (old, old)


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
