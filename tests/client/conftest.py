"""Clients of the server that all tests share, and services of the pytest plugin with data of their own."""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
from commerce.client import AsyncClient
from commerce.client.testing import Service, Services

from tests.support.both_clients import KINDS, BothClients, Kind, both_clients

if TYPE_CHECKING:
    from service.server import Server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Which client a test checks; it runs once for each."""
    found: Kind = request.param
    return found


@pytest.fixture
async def both(kind: Kind, server: "Server") -> AsyncIterator[BothClients]:
    """A client of the shared server."""
    async with both_clients(kind, server.port) as both:
        yield both


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Starts services in a process of their own."""
    # Small batches, so that an export has many.
    with Services({"COMMERCE_MAX_RESPONSE_BYTES": "65536"}) as services:
        yield services


@pytest.fixture
def service(services: Services) -> Iterator[Service]:
    """A service without data, which a test can stop and start."""
    with services.open() as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    """A client of that service."""
    async with AsyncClient(service.address) as client:
        yield client
