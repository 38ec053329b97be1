import asyncio
import json
import stat
from pathlib import Path

import pytest
from click import UsageError
from commerce.client.cli.contexts import ContextFile

from tests.support.commercectl_shell import Shell
from tests.support.identities import TokenIssuer, write_issuers
from tests.support.policies import EVERYTHING, policy_of
from tests.support.servers import running_server


@pytest.fixture
def own(shell: Shell) -> Shell:
    """A shell whose address comes from its contexts."""
    return Shell("", shell.config)


def test_the_current_context_is_used_and_its_secret_is_kept(shell: Shell, own: Shell) -> None:
    own.run("context", "add", "other", "127.0.0.1:1")
    own.run("context", "add", "real", shell.address, "--api-key-file", "-", typed="secret-key\n")
    own.run("users", "list")
    listed = own.run("context", "list")
    assert "API key" in listed.stdout
    assert "secret-key" not in listed.output
    assert json.loads(shell.config.read_text())["contexts"]["real"]["api_key"] == "secret-key"
    assert stat.S_IMODE(shell.config.stat().st_mode) == 0o600
    own.run("context", "use", "other")
    assert [row["current"] for row in own.json("context", "list")] == ["*", ""]
    own.run("--timeout", "0.5", "users", "list", code=7)
    own.run("--context", "real", "users", "list")
    own.run("context", "remove", "other")
    assert [row["name"] for row in own.json("context", "list")] == ["real"]


def test_a_context_that_does_not_exist_is_refused_with_those_that_do(own: Shell) -> None:
    own.run("context", "add", "mine", "127.0.0.1:1")
    for command in (("context", "use", "yours"), ("context", "remove", "yours"), ("--context", "yours", "health")):
        assert "mine" in own.run(*command, code=2).stderr


def test_credentials_that_others_can_read_are_refused(own: Shell) -> None:
    own.run("context", "add", "mine", "127.0.0.1:1")
    own.config.chmod(0o644)
    assert "chmod 600" in own.run("users", "list", code=2).stderr


def test_a_damaged_file_is_refused(own: Shell) -> None:
    own.config.write_text("{")
    own.config.chmod(0o600)
    assert "is damaged" in own.run("users", "list", code=2).stderr
    assert own.run("explain", "internal").stdout


def test_a_file_of_contexts_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    contexts = ContextFile(tmp_path / "contexts.json")
    contexts.path.mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        contexts.save()
    assert [*tmp_path.iterdir()] == [contexts.path]


def test_a_token_is_read_again_by_each_command(shell: Shell, own: Shell, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    own.run("context", "add", "real", shell.address, "--token-file", str(token))
    own.run("users", "list")
    token.unlink()
    assert str(token) in own.run("users", "list", code=2).stderr


async def test_an_expired_token_is_named_and_a_renewed_one_is_used(
    database_url: str, own: Shell, tmp_path: Path
) -> None:
    issuer = TokenIssuer()
    token = tmp_path / "token"
    token.write_text(issuer.token(exp=1))
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_of({"jwt:*": EVERYTHING}))
    async with running_server(
        database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as server:

        def in_thread() -> None:
            own.run("context", "add", "real", f"127.0.0.1:{server.port}", "--token-file", str(token))
            refused = own.run("users", "list", code=6).stderr
            for part in ("UNAUTHENTICATED_CALLER (UNAUTHENTICATED)", "bearer token", "expired", "context add"):
                assert part in refused
            assert token.read_text() not in refused
            token.write_text(issuer.token())
            own.run("users", "list")

        await asyncio.to_thread(in_thread)


@pytest.mark.parametrize("content", ["", "two words", "ü", "a" * 20_000])
def test_a_file_that_has_no_key_is_refused(content: str, own: Shell, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    for option in ("--api-key-file", "--token-file"):
        assert (
            "must contain one key" in own.run("context", "add", "mine", "127.0.0.1:1", option, str(file), code=2).stderr
        )
    assert "must contain one key" in own.run("--api-key-file", str(file), "users", "list", code=2).stderr


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "127.0.0.1:0", "two words:1", "tab\t:1"])
def test_an_address_that_cannot_be_one_is_refused(address: str, own: Shell) -> None:
    assert "is not HOST:PORT" in own.run("context", "add", "mine", address, code=2).stderr
    assert "is not HOST:PORT" in own.run("--address", address, "health", code=2).stderr


def test_a_file_that_is_no_certificate_is_refused(own: Shell, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    wrong = own.run("context", "add", "mine", "shop.example.com:443", "--ca", str(file), code=2)
    assert "certificates cannot be used" in wrong.stderr
    assert not own.config.exists()


def test_a_certificate_needs_its_key(own: Shell, tmp_path: Path) -> None:
    file = tmp_path / "client.pem"
    file.write_text("")
    wrong = own.run("context", "add", "mine", "shop.example.com:443", "--certificate", str(file), code=2)
    assert "needs both certificate and key" in wrong.stderr
    assert not own.config.exists()


def test_health_shows_each_check(shell: Shell) -> None:
    assert {row["status"] for row in shell.json("health")} == {"SERVING"}
