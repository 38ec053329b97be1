"""A real PostgreSQL, migrated once and cloned for each test that wants its own, and a real server on a free port.

TEST_DATABASE_URL runs everything on another server: a URL of a superuser's database.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from service.config import DatabaseSettings, ServerSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.operations import migrate
from service.devtools.embedded_postgres import embedded_postgres
from service.server import Server
from tests.kept_orders import kept_orders, stored_orders
from tests.kept_users import kept_users, stored_users
from tests.support import FAST_PASSWORDS, Clients, connect, driver_connection, log_everything

TEMPLATE = "commerce_template"


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a database server that the tests may fill."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield str(async_url(url).render_as_string(hide_password=False))
        return
    with embedded_postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
async def template_url(postgres_url: str) -> str:
    """URL of a migrated database that nobody connects to; others are cloned from it."""
    url = await _create(postgres_url, f"{TEMPLATE}_{uuid4().hex[:8]}", template="template0")
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    await migrate.upgrade(engine)
    await engine.dispose()
    return url


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
    async with cloned(postgres_url, template_url) as url:
        yield url
        async with driver_connection(url) as connection:
            users, orders = await kept_users(connection), await kept_orders(connection)
            stored_of_users, stored_of_orders = await stored_users(connection), await stored_orders(connection)
        assert users == {user_id: stored_of_users[user_id] for user_id in users}
        assert orders == {order_id: stored_of_orders[order_id] for order_id in orders}


@pytest.fixture(scope="session")
async def server(shared_database_url: str) -> AsyncIterator[Server]:
    """A running server that tests share: each makes users and orders of its own."""
    async with running_server(shared_database_url) as server:
        yield server


@pytest.fixture(scope="session")
async def clients(server: Server) -> AsyncIterator[Clients]:
    """Stubs on a real channel to the shared server."""
    async with connect(server.port) as clients:
        yield clients


@asynccontextmanager
async def running_server(database_url: str, **settings: object) -> AsyncIterator[Server]:
    """Run a server in this process until the block ends."""
    server = Server(load(ServerSettings, **{"DATABASE_URL": database_url, "port": 0, **FAST_PASSWORDS, **settings}))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace=1)


@pytest.fixture(scope="session", autouse=True)
def _logging() -> None:
    log_everything()


@asynccontextmanager
async def cloned(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    """Give a migrated database until the block ends."""
    name = f"test_{uuid4().hex[:12]}"
    url = await _create(postgres_url, name, template=str(async_url(template_url).database))
    try:
        yield url
    finally:
        await _drop(postgres_url, name)


async def _create(postgres_url: str, name: str, *, template: str) -> str:
    await _execute(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
    return async_url(postgres_url).set(database=name).render_as_string(hide_password=False)


async def _drop(postgres_url: str, name: str) -> None:
    await _execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    async with driver_connection(url) as connection:
        await connection.execute(statement)
