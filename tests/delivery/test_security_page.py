"""The files and commands of docs/security.md are those that the service reads and has."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.rpc.identity.issuers import read_issuers
from service.rpc.identity.policy_parsing import read_policy
from tests.support.documents import blocks_of
from tests.support.identities import TokenIssuer
from tests.support.paths import ROOT

BLOCKS = blocks_of("docs/security.md")
# They are there if the page is as these tests expect.
ISSUERS, POLICY = (block.text for block in BLOCKS if block.language == "toml")


def test_the_issuers_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "accounts.json").write_text(TokenIssuer(algorithm="RS256").jwks())
    (tmp_path / "issuers.toml").write_text(ISSUERS)
    assert [issuer.name for issuer in read_issuers(tmp_path / "issuers.toml")] == ["mesh", "accounts"]


def test_the_policy_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    assert read_policy(tmp_path / "policy.toml")["key:warehouse"].permissions == {"orders.read", "orders.process"}


def test_the_commands_about_policies_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (commands,) = (block.text for block in BLOCKS if block.text.startswith("commerce policy"))
    statuses = [
        CliRunner().invoke(main, shlex.split(line)[1:], catch_exceptions=False).exit_code
        for line in commands.splitlines()
    ]
    assert statuses == [0, 0]
