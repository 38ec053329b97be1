"""A pytest plugin for programs that call the services: a real service on a real PostgreSQL, and new data for each test.

In the `conftest.py` at the root of the tests:

    pytest_plugins = ["commerce.client.testing"]

Fixtures:

- `commerce_client`: a `Client` of a service without data;
- `commerce_async_client`: an `AsyncClient` of one, for tests on an event loop (pytest-asyncio or anyio);
- `commerce_service`: this service itself, with its `address` for programs that make their own client;
- `commerce_services`: starts further services, also for several tests together: `with commerce_services.open() as …`;
- `commerce_settings`: the settings of all services, environment variables in a dict. Override it in `conftest.py`.

If a test fails, its report contains what the service has logged.

Each test has a server and a database of its own, because that is isolation that needs no care: unfinished calls,
watches, request ids, limits and caches of one test cannot reach another, and tests may run in any order. It is also
fast enough: the database is a clone in memory (8 ms), the server starts in a process that has loaded it before (40 ms),
and the next one is prepared while a test runs. A test waits about 10 ms for it, and for the deletion of the one before.
A server process for each test would take more than a second. Deleting all rows between tests would take as long as a
clone, and would leave what the server remembers.

The PostgreSQL and all servers of a test run are one process with its children. With pytest-xdist, each worker has such
a process. It ends with pytest, also if that is killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from commerce.client.testing.services import Service, ServiceError, Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

    from commerce.client import AsyncClient, Client

__all__ = ["Service", "ServiceError", "Services"]

_service = pytest.StashKey[Service]()


@pytest.fixture(scope="session")
def commerce_settings() -> Mapping[str, str]:
    """The settings of all services, as environment variables."""
    return {}


@pytest.fixture(scope="session")
def commerce_services(commerce_settings: Mapping[str, str]) -> Iterator[Services]:
    """Starts services, each with data of its own."""
    with Services(commerce_settings) as services:
        # Takes a fifth of a second, in which the services start.
        import commerce.client.generated.methods  # noqa: F401

        yield services


@pytest.fixture
def commerce_service(request: pytest.FixtureRequest, commerce_services: Services) -> Iterator[Service]:
    """A running service without data, which only this test uses."""
    with commerce_services.open() as service:
        request.node.stash[_service] = service
        yield service


@pytest.fixture
def commerce_client(commerce_service: Service) -> Iterator[Client]:
    """A client of the service of this test."""
    from commerce.client import Client

    client = Client(commerce_service.address)
    yield client
    # Calls that a test has left running end with it.
    client.close(grace=0)


async def _commerce_async_client(commerce_service: Service) -> AsyncIterator[AsyncClient]:
    """A client of the service of this test, for tests on an event loop."""
    from commerce.client import AsyncClient

    client = AsyncClient(commerce_service.address)
    yield client
    await client.close(grace=0)


def _async_fixture() -> Callable[..., Any]:
    """Return what makes a coroutine a fixture: pytest-asyncio, if it is installed; anyio takes those of pytest."""
    try:
        import pytest_asyncio
    except ImportError:
        return pytest.fixture
    return pytest_asyncio.fixture


commerce_async_client = _async_fixture()(name="commerce_async_client")(_commerce_async_client)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the service has logged to the report of a test that failed."""
    report = yield
    if report.failed and (service := item.stash.get(_service, None)) and (log := service.log()):
        report.sections.append(("Captured commerce service log", log))
    return report
