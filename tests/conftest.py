"""A real PostgreSQL, migrated once and cloned for each test that wants its own, and a real server on a free port.

TEST_DATABASE_URL runs everything on another server: a URL of a superuser's database. Otherwise, tests in one process
use the server that `make test-cluster` runs in this tree, if it is up, and start one of their own if it is not.

Fixtures and helpers import the service when they are called, so that a unit test does not wait for these imports.
"""

import fcntl
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from service.server import Server
    from tests.support.clients import Clients

ROOT = Path(__file__).resolve().parents[1]
TEST_CLUSTER = ROOT / ".test-cluster"
TEMPLATE = "commerce_template"
UNFINISHED_TEMPLATE = f"{TEMPLATE}_unfinished"
# An advisory lock: of the test runs that share a server, one makes the template.
TEMPLATE_LOCK = 0x74656D706C617465


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a database server that the tests may fill."""
    from service.db.connections.engine import async_url
    from service.devtools.embedded_postgres import embedded_postgres
    from tests.support.clients import log_everything

    log_everything()
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield str(async_url(url).render_as_string(hide_password=False))
        return
    # Workers of pytest-xdist have a server each: some tests end connections by their names.
    shared = "PYTEST_XDIST_WORKER" not in os.environ and is_locked(TEST_CLUSTER / "lock")
    with embedded_postgres(TEST_CLUSTER if shared else tmp_path_factory.mktemp("postgres")) as url:
        yield url


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock, as that does which runs a server of `embedded_postgres`."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@pytest.fixture(scope="session")
async def template_url(postgres_url: str) -> str:
    """URL of a migrated database that nobody connects to; others are cloned from it."""
    return await migrated_template(postgres_url)


async def migrated_template(postgres_url: str) -> str:
    """Return the URL of a database that these migrations made, and make it unless an earlier run has."""
    from service.config import DatabaseSettings, load
    from service.db.connections.engine import async_url, create_engine
    from service.db.operations import migrate
    from tests.support.clients import driver_connection

    migrations = b"".join(path.read_bytes() for path in sorted((ROOT / "migrations").rglob("*.py")))
    name = f"{TEMPLATE}_{sha256(migrations).hexdigest()[:16]}"
    async with driver_connection(postgres_url) as connection:
        # Ends with the connection.
        await connection.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            # Under another name first, so that a run which is killed leaves no half of one.
            await connection.execute(f"DROP DATABASE IF EXISTS {UNFINISHED_TEMPLATE}")
            url = await _create(postgres_url, UNFINISHED_TEMPLATE, template="template0")
            engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
            await migrate.upgrade(engine)
            await engine.dispose()
            await connection.execute(f"ALTER DATABASE {UNFINISHED_TEMPLATE} RENAME TO {name}")
    return str(async_url(postgres_url).set(database=name).render_as_string(hide_password=False))


@pytest.fixture
async def database_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """URL of a migrated database of the test's own."""
    async with cloned(postgres_url, template_url) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """URL of an empty database of the test's own."""
    name = f"empty_{uuid4().hex[:12]}"
    yield await _create(postgres_url, name, template="template0")
    await _drop(postgres_url, name)


@pytest.fixture(scope="session")
async def shared_database_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """URL of the database that `clients` works on. What is kept there must be what is stored, whatever tests do."""
    from tests.support.clients import driver_connection
    from tests.support.encoded_orders import kept_orders, stored_orders
    from tests.support.encoded_users import kept_users, stored_users

    async with cloned(postgres_url, template_url) as url:
        yield url
        async with driver_connection(url) as connection:
            users, orders = await kept_users(connection), await kept_orders(connection)
            stored_of_users, stored_of_orders = await stored_users(connection), await stored_orders(connection)
        assert users == {user_id: stored_of_users[user_id] for user_id in users}
        assert orders == {order_id: stored_of_orders[order_id] for order_id in orders}


@pytest.fixture(scope="session")
async def server(shared_database_url: str) -> AsyncIterator["Server"]:
    """A running server that tests share: each makes users and orders of its own."""
    async with running_server(shared_database_url) as server:
        yield server


@pytest.fixture(scope="session")
async def clients(server: "Server") -> AsyncIterator["Clients"]:
    """Stubs on a real channel to the shared server."""
    from tests.support.clients import connect

    async with connect(server.port) as clients:
        yield clients


@asynccontextmanager
async def running_server(database_url: str, **settings: object) -> AsyncIterator["Server"]:
    """Run a server in this process until the block ends."""
    from service.config import ServerSettings, load
    from service.server import Server
    from tests.support.clients import FAST_PASSWORDS

    server = Server(load(ServerSettings, **{"DATABASE_URL": database_url, "port": 0, **FAST_PASSWORDS, **settings}))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace=1)


@pytest.fixture(scope="session", autouse=True)
def _logging() -> None:
    # A test file that imports what logs, or a fixture that does.
    if "structlog" in sys.modules:
        from tests.support.clients import log_everything

        log_everything()


@asynccontextmanager
async def cloned(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """Give a migrated database until the block ends."""
    from service.db.connections.engine import async_url

    name = f"test_{uuid4().hex[:12]}"
    url = await _create(postgres_url, name, template=str(async_url(template_url).database))
    try:
        yield url
    finally:
        await _drop(postgres_url, name)


async def _create(postgres_url: str, name: str, *, template: str) -> str:
    from service.db.connections.engine import async_url

    await _execute(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
    return async_url(postgres_url).set(database=name).render_as_string(hide_password=False)


async def _drop(postgres_url: str, name: str) -> None:
    await _execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    from tests.support.clients import driver_connection

    async with driver_connection(url) as connection:
        await connection.execute(statement)
