"""`commerce doctor` against real databases, and files that are wrong."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from trustme import CA

from service.cli.file_checks import file_findings
from service.config import ServerSettings, load
from service.db.connections.engine import async_url
from service.db.operations import diagnosis
from service.db.operations.diagnosis import connections_of_server
from service.db.operations.findings import Finding
from service.db.operations.readiness import TABLE_RIGHTS
from service.db.operations.recoverability import version_finding
from service.devtools.embedded_postgres import embedded_postgres
from service.rpc.identity.key_file import format_keys, new_key
from tests.support.certificates import Authority, write_files
from tests.support.command import invoke_command
from tests.support.databases import driver_connection, drop_database, migrated_template
from tests.support.replicas import copy_of, running_replica
from tests.support.servers import serving_clients
from tests.support.waiting import eventually

PASSWORD = "hunter2"  # noqa: S105 - what must not be shown


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server whose commits are durable and whose WAL is archived, unlike with the server that tests share."""
    with embedded_postgres(tmp_path_factory.mktemp("durable"), settings={"archive_mode": "on"}) as url:
        yield url


async def archive_with(url: str, command: str) -> None:
    """Let PostgreSQL archive its WAL with a command."""
    async with driver_connection(url) as connection:
        await connection.execute(f"ALTER SYSTEM SET archive_command = '{command}'")
        await connection.execute("SELECT pg_reload_conf()")


async def until_archiving(connection: asyncpg.Connection, *, fails: bool) -> None:
    """Fill files of the WAL until the last one that PostgreSQL has tried to archive was archived, or was not."""

    async def is_so() -> bool:
        await connection.execute("SELECT pg_logical_emit_message(false, 'test', 'more WAL'), pg_switch_wal()")
        # The archiver tries again after a second.
        await asyncio.sleep(0.5)
        has_failed = "SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)"
        return bool(await connection.fetchval(f"{has_failed} FROM pg_stat_archiver") == fails)

    await eventually(is_so, 90)


@pytest.fixture(scope="module")
async def template_url(postgres_url: str) -> str:
    """URL of a migrated database on it."""
    await archive_with(postgres_url, "true")
    return await migrated_template(postgres_url)


@dataclass(frozen=True)
class Report:
    """What the doctor printed: by the name of each check, the grade and the words."""

    status: int
    checks: dict[str, tuple[str, str]]
    stderr: str

    @property
    def not_ok(self) -> dict[str, str]:
        return {name: grade for name, (grade, _) in self.checks.items() if grade != "ok"}


async def doctor(monkeypatch: pytest.MonkeyPatch, database_url: str, **settings: object) -> Report:
    monkeypatch.setenv("DATABASE_URL", database_url)
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    finished = await invoke_command("doctor")
    lines = [line.split(maxsplit=1) for line in finished.stdout.splitlines()]
    checks: dict[str, tuple[str, str]] = {}
    for grade, rest in lines:
        # The names of some checks have two words; two spaces or more follow each.
        name, _, words = rest.partition("  ")
        checks[name] = (grade, words.strip())
    return Report(finished.status, checks, finished.stderr)


def as_role(url: str, role: str) -> str:
    return async_url(url).set(username=role).render_as_string(hide_password=False)


async def test_a_sound_database_passes_all_checks(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    report = await doctor(monkeypatch, database_url, COMMERCE_WORKERS=2)
    assert (report.status, report.stderr) == (0, "")
    names = (
        "settings exposure policy database version writes encoding schema rights events sequences durability archiving"
        " replication encryption clock connections"
    )
    assert report.checks.keys() == {*names.split(), "time limit", "signing key"}
    assert report.not_ok == {}
    each = connections_of_server(load(ServerSettings))
    assert f"at most {2 * each} are needed, {each} for each process" in report.checks["connections"][1]


async def test_an_unmigrated_database_needs_migrating(monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> None:
    report = await doctor(monkeypatch, empty_database_url)
    assert report.status == 1
    assert report.not_ok == {"schema": "FAIL"}
    assert "run `commerce migrate`" in report.checks["schema"][1]
    assert report.stderr == "Error: 1 check failed\n"


async def test_a_database_out_of_reach_is_one_failure_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await doctor(monkeypatch, f"postgresql://ada:{PASSWORD}@127.0.0.1:1/shop")
    assert report.not_ok == {"database": "FAIL"}
    assert "127.0.0.1:1: the connection was refused" in report.checks["database"][1]
    assert PASSWORD not in str(report)


async def test_wrong_settings_are_named_each_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = await doctor(
        monkeypatch, "", COMMERCE_PROT=PASSWORD, COMMERCE_PORT=PASSWORD, COMMERCE_SIGNING_KEY_FILE=tmp_path / "none"
    )
    assert report.status == 1
    assert report.stderr == "Error: 3 checks failed\n"
    assert PASSWORD not in str(report)


@pytest.fixture
async def guest(connection: asyncpg.Connection) -> AsyncIterator[str]:
    """A role that may do nothing, and has few connections."""
    role = f"guest_{uuid4().hex[:12]}"
    await connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 5")
    yield role
    await connection.execute(f"DROP OWNED BY {role}")
    await connection.execute(f"DROP ROLE {role}")


async def test_missing_rights_and_connections_are_told(
    monkeypatch: pytest.MonkeyPatch, database_url: str, connection: asyncpg.Connection, guest: str
) -> None:
    await connection.execute(f"GRANT SELECT ON alembic_version, swept_events, events, signing_keys TO {guest}")
    report = await doctor(monkeypatch, as_role(database_url, guest))
    assert report.not_ok == {"rights": "FAIL", "connections": "warn"}
    assert "INSERT on users" in report.checks["rights"][1]
    assert "PostgreSQL allows 5: increase that limit" in report.checks["connections"][1]


async def test_commits_that_can_be_lost_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, database_url: str, connection: asyncpg.Connection
) -> None:
    database = async_url(database_url).database
    await connection.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = off')
    report = await doctor(monkeypatch, database_url)
    assert (report.status, report.not_ok) == (0, {"durability": "warn"})
    assert "synchronous_commit is off" in report.checks["durability"][1]


async def test_an_archive_that_fails_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, database_url: str, connection: asyncpg.Connection
) -> None:
    await archive_with(postgres_url, "false")
    await until_archiving(connection, fails=True)
    report = await doctor(monkeypatch, database_url)
    assert (report.status, report.not_ok) == (0, {"archiving": "warn"})
    assert "cannot be archived, and PostgreSQL stores all WAL until it can" in report.checks["archiving"][1]
    await archive_with(postgres_url, "")
    report = await doctor(monkeypatch, database_url)
    assert report.not_ok == {"archiving": "warn"}
    assert "archive_command is empty" in report.checks["archiving"][1]
    await archive_with(postgres_url, "true")
    # Also for the other tests.
    await until_archiving(connection, fails=False)
    assert (await doctor(monkeypatch, database_url)).not_ok == {}


async def test_a_replication_slot_without_a_reader_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        report = await doctor(monkeypatch, database_url)
    finally:
        await connection.execute("SELECT pg_drop_replication_slot('left_behind')")
    assert (report.status, report.not_ok) == (0, {"replication": "warn"})
    assert re.match(r"the replication slot left_behind holds back \d+ \w+ of WAL", report.checks["replication"][1])


async def test_a_subscription_that_is_left_over_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, database_url: str, connection: asyncpg.Connection
) -> None:
    options = "connect = false, enabled = false, slot_name = NONE"
    create = "CREATE SUBSCRIPTION upgrade CONNECTION 'dbname=old' PUBLICATION upgrade"
    await connection.execute(f"{create} WITH ({options})")
    try:
        report = await doctor(monkeypatch, database_url)
    finally:
        await connection.execute("DROP SUBSCRIPTION upgrade")
    assert (report.status, report.not_ok) == (0, {"replication": "warn"})
    assert "drop it with DROP SUBSCRIPTION upgrade" in report.checks["replication"][1]
    assert (await doctor(monkeypatch, database_url)).not_ok == {}


async def test_a_sequence_that_would_repeat_numbers_fails(
    monkeypatch: pytest.MonkeyPatch, database_url: str, connection: asyncpg.Connection, guest: str
) -> None:
    async with serving_clients(database_url) as clients:
        await clients.create_order((await clients.create_user()).id)
    for table, rights in TABLE_RIGHTS.items():
        await connection.execute(f"GRANT {rights.replace(' ', ', ')} ON {table} TO {guest}")
    await connection.execute(f"GRANT USAGE ON SEQUENCE order_number_seq TO {guest}")
    # One that may not read the sequences of identity columns.
    report = await doctor(monkeypatch, as_role(database_url, guest))
    assert report.not_ok == {"connections": "warn"}
    for restart in ("ALTER TABLE events ALTER position RESTART", "ALTER SEQUENCE order_number_seq RESTART"):
        await connection.execute(restart)
        report = await doctor(monkeypatch, database_url)
        assert report.not_ok == {"sequences": "FAIL"}, restart
        (statement,) = re.findall(r"run (SELECT setval\('\w+', \d+\))", report.checks["sequences"][1])
        await connection.execute(statement)
        assert (await doctor(monkeypatch, database_url)).not_ok == {}, statement


@pytest.mark.parametrize(
    ("number", "grade", "words"),
    [
        (140024, "warn", "PostgreSQL 14 is too old: PostgreSQL 15 to 18 are supported"),
        (150018, "ok", "PostgreSQL 15 to 18 are supported"),
        (180006, "ok", "PostgreSQL 15 to 18 are supported"),
        (190000, "warn", "this release is not tested with PostgreSQL 19"),
    ],
)
def test_a_version_that_is_not_supported_is_warned_of(number: int, grade: str, words: str) -> None:
    finding = version_finding(number)
    assert (finding.grade, finding.words[: len(words)]) == (grade, words)


async def test_a_read_only_database_fails(
    monkeypatch: pytest.MonkeyPatch, database_url: str, connection: asyncpg.Connection
) -> None:
    database = async_url(database_url).database
    await connection.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    report = await doctor(monkeypatch, database_url)
    assert report.not_ok == {"writes": "FAIL"}


async def test_another_encoding_fails(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    name = f"latin_{uuid4().hex[:12]}"
    async with driver_connection(postgres_url) as connection:
        options = "ENCODING LATIN1 LOCALE_PROVIDER libc LOCALE 'C'"
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
    url = async_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    report = await doctor(monkeypatch, url)
    assert report.not_ok == {"encoding": "FAIL", "schema": "FAIL"}
    await drop_database(postgres_url, name)


@pytest.mark.parametrize(("hours", "grade"), [(0.001, "warn"), (1, "FAIL"), (-1, "FAIL")])
async def test_a_clock_that_differs_is_told(
    monkeypatch: pytest.MonkeyPatch, database_url: str, hours: float, grade: str
) -> None:
    class Clock:
        @staticmethod
        def time() -> float:
            return time.time() + 3600 * hours

    monkeypatch.setattr(diagnosis, "time", Clock)
    report = await doctor(monkeypatch, database_url)
    assert report.not_ok == {"clock": grade}
    assert f"differ by {abs(3600 * hours):.1f} s" in report.checks["clock"][1]


async def test_a_replica_is_checked(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> None:
    report = await doctor(monkeypatch, database_url, READ_DATABASE_URL=database_url)
    assert report.not_ok == {"replica": "warn"}
    assert "READ_DATABASE_URL does not point to a replica" in report.checks["replica"][1]
    report = await doctor(monkeypatch, database_url, READ_DATABASE_URL=f"postgresql://ada:{PASSWORD}@127.0.0.1:1/shop")
    assert report.not_ok == {"replica": "warn"}
    assert "127.0.0.1:1: the connection was refused; check READ_DATABASE_URL" in report.checks["replica"][1]
    await copy_of(database_url, tmp_path / "replica")
    with running_replica(tmp_path / "replica") as replica:
        report = await doctor(monkeypatch, database_url, READ_DATABASE_URL=replica.database(database_url))
    assert report.not_ok == {}
    assert "lags less than 1 s" in report.checks["replica"][1]


POLICY = """
[roles]
reader = ["users.read"]

[identities]
"key:billing" = ["reader"]
"""
ISSUER = """
[issuers.main]
issuer = "https://id.example.com"
audience = "commerce"
algorithms = ["ES256"]
jwks = "{jwks}"
"""


async def test_files_of_identities_and_policy_are_checked(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    policy, keys, issuers = (tmp_path / name for name in ("policy.toml", "keys.toml", "issuers.toml"))
    policy.write_text(POLICY)
    now = datetime.now(UTC)
    _, lasting = new_key("billing", now)
    keys.write_text(format_keys([lasting]))
    issuers.write_text(ISSUER.format(jwks="http://127.0.0.1:1/keys"))
    files = {"COMMERCE_API_KEYS_FILE": keys, "COMMERCE_JWT_ISSUERS_FILE": issuers}
    report = await doctor(monkeypatch, database_url, **files)
    assert report.not_ok == {"policy": "FAIL", "tokens": "warn"}
    assert "set COMMERCE_POLICY_FILE" in report.checks["policy"][1]
    assert report.checks["API keys"] == ("ok", f"{keys} has 1 valid keys")
    for name in files:
        monkeypatch.delenv(name)
    report = await doctor(monkeypatch, database_url, COMMERCE_POLICY_FILE=policy)
    assert report.not_ok == {"policy": "FAIL"}
    assert "callers have no identities" in report.checks["policy"][1]
    report = await doctor(monkeypatch, database_url, **files)
    assert report.checks["policy"] == ("ok", f"{policy} has 1 roles for 1 names of identities")
    assert report.status == 0
    # The keys of a file must be there at start.
    issuers.write_text(ISSUER.format(jwks="none.json"))
    policy.write_text(POLICY.replace("users.read", "users.unknown"))
    keys.write_text("[[keys]]")
    report = await doctor(monkeypatch, database_url)
    assert report.not_ok == {"policy": "FAIL", "tokens": "FAIL", "API keys": "FAIL"}
    assert "users.read" in report.checks["policy"][1]


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ([None], None),
        ([100], None),
        ([5], "the last key of billing expires soon"),
        ([5, 100], None),
        ([5, None], None),
        ([5, 6], "the last key of billing expires soon"),
        ([-1], "no valid key"),
        ([], "no valid key"),
    ],
)
async def test_keys_that_expire_are_warned_of(tmp_path: Path, days: list[int | None], words: str | None) -> None:
    now = datetime.now(UTC)
    stored = [new_key("billing", now, None if one is None else now + timedelta(days=one))[1] for one in days]
    path = tmp_path / "keys.toml"
    path.write_text(format_keys(stored))
    settings = load(ServerSettings, DATABASE_URL="postgresql:///", api_keys_file=path)
    warnings = [finding.words for finding in await file_findings(settings) if finding.grade == "warn"]
    assert bool(warnings) == bool(words)
    assert all(words and words in warning for warning in warnings)


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("begins", "ends", "grade", "words"),
    [
        (-DAY, 100 * DAY, "ok", "is valid until"),
        (-DAY, 5 * DAY, "warn", "replace the files soon"),
        (-2 * DAY, -DAY, "FAIL", "clients refuse it: replace the files"),
        (DAY, 2 * DAY, "FAIL", "correct the clock"),
    ],
)
async def test_the_time_of_a_certificate_is_checked(
    tmp_path: Path, begins: timedelta, ends: timedelta, grade: str, words: str
) -> None:
    now = datetime.now(UTC)
    certificate = CA().issue_cert("127.0.0.1", not_before=now + begins, not_after=now + ends)
    write_files(tmp_path, certificate)
    finding = (await tls_findings(tmp_path))["TLS"]
    assert finding.grade == grade
    assert words in finding.words


async def test_tls_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    authority = Authority()
    files = write_files(tmp_path, authority.server())
    files.key.write_bytes(authority.server().private_key_pem.bytes())
    finding = (await tls_findings(tmp_path))["TLS"]
    assert (finding.grade, finding.words) == (
        "FAIL",
        f"the key in {files.key} is not that of the first certificate in {files.certificate}",
    )


async def tls_findings(folder: Path, **settings: object) -> dict[str, Finding]:
    files = {"tls_certificate_file": folder / "tls.crt", "tls_key_file": folder / "tls.key"}
    loaded = load(ServerSettings, DATABASE_URL="postgresql:///", **files, **settings)
    return {finding.name: finding for finding in await file_findings(loaded)}


@pytest.mark.parametrize(
    ("settings", "grades"),
    [
        ({}, ["ok"]),
        ({"host": "192.0.2.1"}, ["FAIL", "FAIL"]),
        ({"host": "192.0.2.1", "allow_plaintext": True}, ["FAIL", "warn"]),
        ({"host": "192.0.2.1", "allow_plaintext": True, "allow_anonymous": True}, ["warn", "warn"]),
    ],
)
async def test_whom_a_server_lets_in_is_told(settings: dict[str, object], grades: list[str]) -> None:
    loaded = load(ServerSettings, DATABASE_URL="postgresql:///", **settings)
    assert [finding.grade for finding in await file_findings(loaded) if finding.name == "exposure"] == grades
