"""`commerce config`: the settings in effect, their origin, and no secret."""

import os
from pathlib import Path

import pytest

from service.cli.configuration import database_url_without_password, effective_settings, shown_value
from tests.support.command import invoke_command

SECRET = "hunter2"  # noqa: S105 - what must not be shown
KEY = SECRET * 5


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that has only the database URL."""
    for name in os.environ:
        if name.upper().startswith(("COMMERCE_", "READ_DATABASE_URL", "DATABASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ada:{SECRET}@db.example.com/commerce")
    return monkeypatch


async def printed(*options: str, status: int = 0) -> tuple[dict[str, list[str]], str]:
    """Return the words of each line by the first, and what was written to standard error."""
    finished = await invoke_command("config", *options)
    assert finished.status == status, finished
    assert SECRET not in finished.stdout + finished.stderr
    return {line.split()[0]: line.split()[1:] for line in finished.stdout.splitlines()}, finished.stderr


async def test_each_setting_has_a_value_and_an_origin(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    environment.setenv("COMMERCE_SIGNING_KEY_FILE", str(key))
    environment.setenv("commerce_port", "7")
    environment.setenv("COMMERCE_WATCH_QUEUE", "8")
    lines, _ = await printed()
    assert lines["DATABASE_URL"] == ["postgresql://ada:***@db.example.com:5432/commerce", "environment"]
    assert lines["COMMERCE_SIGNING_KEY"] == ["***", "file", str(key)]
    assert lines["COMMERCE_PORT"] == ["7", "environment"]
    assert lines["COMMERCE_WATCH_QUEUE_SIZE"][0] == "8"
    assert lines["COMMERCE_WATCH_QUEUE_SIZE"][-1] == "COMMERCE_WATCH_QUEUE"
    assert lines["COMMERCE_HOST"] == ["127.0.0.1", "default"]
    assert lines["READ_DATABASE_URL"] == lines["COMMERCE_NATS_URL"] == ["not", "set"]
    assert lines.keys() == {setting.name for setting in effective_settings()}


async def test_only_changed_settings_can_be_printed() -> None:
    assert (await printed("--changed"))[0].keys() == {"DATABASE_URL"}


async def test_unknown_variables_are_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_PROT", SECRET)
    # No secret, so it cannot be in a file.
    environment.setenv("COMMERCE_PORT_FILE", "/nowhere")
    _, warnings = await printed()
    assert "COMMERCE_PROT is ignored: there is no setting of this name; is it COMMERCE_PORT?" in warnings
    assert "COMMERCE_PORT_FILE is ignored" in warnings


async def test_wrong_settings_are_marked_and_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_PORT", SECRET)
    environment.setenv("COMMERCE_SIGNING_KEY", SECRET)
    environment.setenv("COMMERCE_EVENT_RETENTION_DAYS", SECRET)
    environment.setenv("READ_DATABASE_URL_FILE", "/nowhere")
    environment.delenv("DATABASE_URL")
    lines, errors = await printed("--changed", status=1)
    assert lines == {
        "READ_DATABASE_URL": ["(wrong)", "file", "/nowhere"],
        "COMMERCE_PORT": ["(wrong)", "environment"],
        "COMMERCE_SIGNING_KEY": ["(wrong)", "environment"],
        "COMMERCE_EVENT_RETENTION_DAYS": ["(wrong)", "environment"],
        "DATABASE_URL": ["not", "set"],
    }
    assert errors.startswith("Error: ")
    assert errors.count("; ") == 4
    assert "DATABASE_URL is not set" in errors


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("COMMERCE_NATS_URL", f"nats://{SECRET}@a:4222,nats://b:{SECRET}@c", "nats://***@a:4222,nats://***@c"),
        ("COMMERCE_NATS_URL", f"nats://a/?token={SECRET}", "nats://a/"),
        ("COMMERCE_NATS_URL", SECRET, "***"),
        ("DATABASE_URL", SECRET, "***"),
        ("DATABASE_URL", f"postgresql://ada:p/{SECRET}@db/shop", "postgresql://ada:***@db:5432/shop"),
        (
            "DATABASE_URL",
            f"postgresql:///shop?host=/run/db&password={SECRET}",
            "postgresql://:***@%2Frun%2Fdb:5432/shop",
        ),
    ],
)
def test_secrets_are_hidden(name: str, value: str, shown: str) -> None:
    assert shown_value(name, value, secret=True) == shown


def test_a_url_without_its_password_names_the_same_database() -> None:
    assert database_url_without_password("postgres://one,two:5433/shop?target_session_attrs=read-write") == (
        "postgresql://one:5432,two:5433/shop?target_session_attrs=read-write"
    )
