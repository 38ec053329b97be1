"""A real PostgreSQL, migrated once and cloned for each test that needs its own database, and a real server.

TEST_DATABASE_URL runs everything on another server: a URL of a superuser's database. Otherwise, tests in one process
use the server that `make test-cluster` runs in this tree, if it is up, and start one of their own if it is not.

Fixtures import the service when they are called, so that a unit test does not wait for these imports.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

import service  # noqa: F401 - sets the environment variables that gRPC reads when a test imports it

if TYPE_CHECKING:
    import asyncpg
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

    from service.server import Server
    from tests.support.clients import Clients
    from tests.support.databases import Observer
    from tests.support.logs import Log
    from tests.support.servers import OwnServer


def pytest_configure() -> None:
    """Let the programs that tests start be interrupted, even if a shell runs the tests in the background.

    Such a shell has SIGINT ignored, which child processes inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "Scheduling | None":
    """Let the workers share the experiments of tests/faults; together they would keep one worker busy for minutes."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FilesAndExperiments(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith("tests/faults/test_smoke.py") else super()._split_scope(nodeid)

    return FilesAndExperiments(config, log)


# Their tests start programs, and take seconds each.
SLOW_FOLDERS = tuple(
    f"tests/{name}/"
    for name in ("faults", "process", "delivery", "recoveries", "clients", "client", "commercectl", "console", "envoy")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers begin with the slow folders; else one of them would still be busy with their last when others end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not item.nodeid.startswith(SLOW_FOLDERS))


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a database server in which tests may create databases."""
    from service.db.connections.engine import async_url
    from service.devtools.embedded_postgres import embedded_postgres
    from tests.support.cluster import TEST_CLUSTER, is_locked
    from tests.support.databases import NOT_DURABLE
    from tests.support.logs import log_everything

    log_everything()
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield str(async_url(url).render_as_string(hide_password=False))
        return
    # Workers of pytest-xdist have a server each: some tests end connections by their names.
    shared = "PYTEST_XDIST_WORKER" not in os.environ and is_locked(TEST_CLUSTER / "lock")
    folder = TEST_CLUSTER if shared else tmp_path_factory.mktemp("postgres")
    with embedded_postgres(folder, settings=NOT_DURABLE) as url:
        yield url


@pytest.fixture(scope="session")
async def template_url(postgres_url: str) -> str:
    """URL of a migrated database without connections; other databases are cloned from it."""
    from tests.support.databases import migrated_template

    return await migrated_template(postgres_url)


@pytest.fixture
async def database_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """URL of a migrated database that only this test uses."""
    from tests.support.databases import cloned

    async with cloned(postgres_url, template_url) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """URL of an empty database that only this test uses."""
    from tests.support.databases import create_database, drop_database

    name = f"empty_{uuid4().hex[:12]}"
    yield await create_database(postgres_url, name, template="template0")
    await drop_database(postgres_url, name)


@pytest.fixture(scope="session")
async def shared_database_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """URL of the database that `clients` works on.

    After all tests, every encoded message in it must equal the columns and rows that it was made from.
    """
    from tests.support.databases import cloned, driver_connection
    from tests.support.encoded_orders import encoded_orders, stored_orders
    from tests.support.encoded_users import encoded_users, stored_users

    async with cloned(postgres_url, template_url) as url:
        yield url
        async with driver_connection(url) as connection:
            users, orders = await encoded_users(connection), await encoded_orders(connection)
            stored_of_users, stored_of_orders = await stored_users(connection), await stored_orders(connection)
        assert users == {user_id: stored_of_users[user_id] for user_id in users}
        assert orders == {order_id: stored_of_orders[order_id] for order_id in orders}


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["asyncpg.Connection"]:
    """A connection to the test's database beside the service's."""
    from tests.support.databases import driver_connection

    async with driver_connection(database_url) as connection:
        yield connection


@pytest.fixture
async def observer(database_url: str) -> AsyncIterator["Observer"]:
    """An observer of the service's connections to the test's database."""
    from tests.support.databases import observing

    async with observing(database_url) as observer:
        yield observer


@pytest.fixture(scope="session")
async def server(shared_database_url: str) -> AsyncIterator["Server"]:
    """A running server that tests share: each test creates its own users and orders."""
    from tests.support.servers import running_server

    async with running_server(shared_database_url) as server:
        yield server


@pytest.fixture(scope="session")
async def clients(server: "Server") -> AsyncIterator["Clients"]:
    """Stubs on a real channel to the shared server."""
    from tests.support.clients import connect

    async with connect(server.port) as clients:
        yield clients


@pytest.fixture(scope="module")
async def own(postgres_url: str, template_url: str) -> AsyncIterator["OwnServer"]:
    """A server, with its database, that only this module's tests use."""
    from tests.support.servers import own_server

    async with own_server(postgres_url, template_url) as own:
        yield own


@pytest.fixture
def log() -> Iterator["Log"]:
    """What is logged during the test."""
    from tests.support.logs import logged

    with logged() as log:
        yield log


@pytest.fixture(scope="session", autouse=True)
def _logging() -> None:
    # Only if a test file, or a fixture, has imported what logs.
    if "structlog" in sys.modules:
        from tests.support.logs import log_everything

        log_everything()
