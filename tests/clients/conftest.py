"""The TypeScript client: its packages, and the environment of its tests."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, chain, replace, write_files
from tests.support.databases import cloned
from tests.support.identities import TokenIssuer, write_issuers, write_keys
from tests.support.passwords import FAST_PASSWORDS
from tests.support.paths import ROOT
from tests.support.policies import EVERYTHING, policy_of

TYPESCRIPT = ROOT / "clients" / "typescript"
MINIMUM_NODE = 20


def node_version() -> int:
    """Return the major version of Node.js, or 0 if it is not installed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return 0
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return int(version.removeprefix("v").partition(".")[0])


def run(*command: str | Path, folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a program to its end, and return what it printed; fails with that if the program fails."""
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ended.returncode == 0, f"{' '.join(map(str, command))} failed:\n{ended.stdout}"
    return ended.stdout


@pytest.fixture(scope="session")
def typescript() -> Path:
    """The folder of the client, with the packages that its lock names. It is an error if they cannot be installed."""
    if (version := node_version()) < MINIMUM_NODE:
        found = f"Node.js {version} is older" if version else "Node.js is not installed"
        pytest.skip(f"the TypeScript client needs Node.js {MINIMUM_NODE} and npm: {found}")
    run("make", "--no-print-directory", "typescript", folder=ROOT)
    return TYPESCRIPT


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    """Environment in which programs can start servers on a database of their own."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("COMMERCE_")}
    return {
        **variables,
        **{f"COMMERCE_{name.upper()}": str(value) for name, value in FAST_PASSWORDS.items()},
        "DATABASE_URL": database_url,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}",
        "TEST_PYTHON": sys.executable,
    }


@pytest.fixture
async def another_database_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """URL of a second database that only this test uses."""
    async with cloned(postgres_url, template_url) as url:
        yield url


@pytest.fixture
def identities(tmp_path: Path) -> Path:
    """A folder with the files of a server that knows its callers, and with credentials of such callers."""
    authority = Authority()
    write_files(tmp_path, authority.server(), authority.pem)
    certificate = authority.ca.issue_cert("billing.example.com", common_name="billing")
    replace(tmp_path / "client.crt", chain(certificate))
    replace(tmp_path / "client.key", certificate.private_key_pem.bytes())
    for name, key in zip(("api-key", "reader-key"), write_keys(tmp_path / "keys", "warehouse", "reader"), strict=True):
        (tmp_path / name).write_text(key)
    may_do_everything = dict.fromkeys(("key:warehouse", "CN=billing", "jwt:accounts:billing"), EVERYTHING)
    (tmp_path / "policy.toml").write_text(policy_of({**may_do_everything, "key:reader": ["users.read"]}))
    issuer = TokenIssuer()
    write_issuers(tmp_path, issuer)
    (tmp_path / "valid.jwt").write_text(issuer.token())
    (tmp_path / "expired.jwt").write_text(issuer.token(exp=int(time.time()) - 3600))
    return tmp_path
