"""The command on a real service with data of its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from commerce.client import Client
from commerce.client.cli.main import cli
from commerce.client.testing import Service, Services

from tests.support.passwords import PASSWORD


@dataclass
class Shell:
    """Runs commands on one service."""

    address: str
    config: Path

    def run(self, *arguments: str, typed: str | None = None, code: int = 0) -> Result:
        """Run a command, and expect this exit code."""
        environment = {"COMMERCECTL_ADDRESS": self.address, "COMMERCECTL_CONFIG": str(self.config)}
        result = CliRunner().invoke(cli, arguments, input=typed, env=environment, prog_name="commercectl")
        assert result.exit_code == code, f"{arguments} gave {result.exit_code}\n{result.output}\n{result.exception!r}"
        return result

    def json(self, *arguments: str) -> Any:
        """Run a command, and return what it prints as JSON."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Starts services in a process of their own."""
    with Services({"COMMERCE_WATCH_CHECKPOINT_INTERVAL": "1"}) as services:
        yield services


@pytest.fixture(scope="module")
def service(services: Services) -> Iterator[Service]:
    """A service that the tests of a module share."""
    with services.open() as service:
        yield service


@pytest.fixture
def shell(service: Service, tmp_path: Path) -> Shell:
    """Runs commands on that service."""
    return Shell(service.address, tmp_path / "contexts.json")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    """A client of that service."""
    with Client(service.address) as client:
        yield client


@pytest.fixture
def new_user(client: Client) -> Callable[[str], Any]:
    """Creates users."""
    return lambda name: client.users.create(email=f"{name}@example.com", username=name, password=PASSWORD)
