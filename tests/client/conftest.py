from collections.abc import AsyncIterator, Iterator

import pytest
from commerce.client import AsyncClient
from commerce.client.testing import Service, Services


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    # Small batches, so that an export has many.
    with Services({"COMMERCE_MAX_RESPONSE_BYTES": "65536"}) as services:
        yield services


@pytest.fixture
def service(services: Services) -> Iterator[Service]:
    with services.open() as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.address) as client:
        yield client
