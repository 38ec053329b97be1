"""The TypeScript client: its packages, and the environment of its tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.passwords import FAST_PASSWORDS
from tests.support.paths import ROOT

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
