"""The command on a real service with data of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commerce.client import Client
from commerce.client.testing import Service, Services

from tests.support.commercectl_shell import NewUser, Shell
from tests.support.passwords import PASSWORD


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
def new_user(client: Client) -> NewUser:
    """Creates users."""
    return lambda name: client.users.create(email=f"{name}@example.com", username=name, password=PASSWORD)
