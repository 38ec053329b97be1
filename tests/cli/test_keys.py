import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.rpc.identity.api_keys import ApiKeys
from service.rpc.identity.key_file import format_keys, new_key, read_keys
from service.rpc.identity.refusals import Refusals
from tests.support.processes import CommandResult, run_command


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def command(*arguments: str | Path) -> CommandResult:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    return CommandResult(result.exit_code, result.stdout, result.stderr)


def caller_of(path: Path, key: str) -> str:
    keys = ApiKeys(path, Refusals(["keys"]))
    keys.load()
    return keys.caller(key).name


def test_a_created_key_is_printed_once_and_works(path: Path) -> None:
    created = command("keys", "create", "billing", "--file", path)
    assert created.status == 0, created
    key = created.stdout.strip()
    assert caller_of(path, key) == "key:billing"
    assert key not in created.stderr
    assert key.split("_", 2)[2] not in path.read_text()
    assert "of billing, never expires, shown only now" in created.stderr


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    path.write_text(format_keys([]))
    path.chmod(0o644)
    command("keys", "create", "billing", "--file", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["keys.toml"]


def test_the_setting_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMERCE_API_KEYS_FILE", str(path))
    command("keys", "create", "billing")
    assert [key.name for key in read_keys(path)] == ["billing"]
    monkeypatch.delenv("COMMERCE_API_KEYS_FILE")
    failed = command("keys", "list")
    assert (failed.status, failed.stderr) == (
        1,
        "Error: name the file of keys with --file, or set COMMERCE_API_KEYS_FILE\n",
    )


def test_a_key_is_rotated_by_two_valid_ones(path: Path) -> None:
    keys = [command("keys", "create", "billing", "--file", path).stdout.strip() for _ in range(2)]
    assert [caller_of(path, key) for key in keys] == ["key:billing"] * 2
    old, new = (key.split("_")[1] for key in keys)
    third = command("keys", "create", "billing", "--file", path)
    assert (third.status, third.stderr) == (
        1,
        f"Error: billing has 2 valid keys, {old} and {new}: revoke one first\n",
    )
    assert command("keys", "revoke", old, "--file", path).status == 0
    assert [key.id for key in read_keys(path)] == [new]
    assert command("keys", "create", "billing", "--file", path).status == 0


def test_an_expired_key_does_not_count(path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=9)
    expired = [new_key("billing", long_ago, long_ago + timedelta(days=1))[1] for _ in range(2)]
    path.write_text(format_keys(expired))
    assert command("keys", "create", "billing", "--file", path).status == 0


def test_a_key_can_expire(path: Path) -> None:
    command("keys", "create", "billing", "--days", "90", "--file", path)
    (key,) = read_keys(path)
    assert key.expire_time == key.create_time + timedelta(days=90)


def test_keys_are_listed_without_their_secrets(path: Path) -> None:
    time = datetime(2026, 1, 2, 12, tzinfo=UTC)
    stored = [
        new_key("shop", time)[1],
        new_key("billing", time, time + timedelta(days=1))[1],
        new_key("billing", time + timedelta(days=1), datetime(2999, 1, 1, tzinfo=UTC))[1],
    ]
    path.write_text(format_keys(stored))
    listed = command("keys", "list", "--file", path)
    assert listed.stdout.splitlines() == [
        f"{stored[1].id}  billing  created 2026-01-02, expired 2026-01-03 12:00 UTC",
        f"{stored[2].id}  billing  created 2026-01-03, expires 2999-01-01 00:00 UTC",
        f"{stored[0].id}  shop  created 2026-01-02, never expires",
    ]


async def test_several_commands_at_the_same_time_lose_no_key(path: Path) -> None:
    names = [f"caller-{number}" for number in range(6)]
    finished = await asyncio.gather(*(run_command("keys", "create", name, "--file", str(path)) for name in names))
    assert [result.status for result in finished] == [0] * 6
    assert sorted(key.name for key in read_keys(path)) == sorted(names)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a", "a" * 64, "é", "a\n"])
def test_a_name_must_be_simple(path: Path, name: str) -> None:
    failed = command("keys", "create", "--file", path, "--", name)
    assert failed.status == 1
    assert "a name has 1 to 63 letters, digits, dots, hyphens and underscores" in failed.stderr
    assert not path.exists()


def test_a_key_that_does_not_exist_is_not_revoked(path: Path) -> None:
    created = command("keys", "create", "billing", "--file", path)
    before = path.read_bytes()
    failed = command("keys", "revoke", "billing", "--file", path)
    key_id = created.stdout.split("_")[1]
    assert (failed.status, failed.stderr) == (1, f"Error: there is no key with this id; billing has {key_id}\n")
    failed = command("keys", "revoke", "aaaaaaaaaa", "--file", path)
    assert failed.stderr == "Error: there is no key with this id\n"
    assert path.read_bytes() == before


def test_a_file_that_is_not_valid_is_left_as_it_is(path: Path) -> None:
    path.write_text("x = 1")
    for arguments in (("create", "billing"), ("revoke", "aaaaaaaaaa"), ("list",)):
        failed = command("keys", *arguments, "--file", path)
        assert (failed.status, failed.stderr.count("\n")) == (1, 1)
        assert "nothing but [[keys]]" in failed.stderr
    assert path.read_text() == "x = 1"


def test_a_folder_that_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    failed = command("keys", "create", "billing", "--file", tmp_path / "none" / "keys.toml")
    assert (failed.status, failed.stderr) == (
        1,
        "Error: the file of API keys cannot be written: No such file or directory\n",
    )
