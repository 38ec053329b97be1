"""What makes a database unready, and what does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import Overloaded
from service.config import DatabaseSettings, load
from service.db.connections.engine import async_url, create_engine
from service.db.database import Database
from service.db.operations.readiness import TABLE_RIGHTS, readiness_problem
from service.db.tables import metadata
from tests.support.databases import driver_connection
from tests.support.methods import call
from tests.support.passwords import PASSWORD
from tests.support.requests import GOOD_REQUESTS
from tests.support.servers import serving_clients
from tests.support.watching import watch_users


@asynccontextmanager
async def engine_of(url: str, pool_timeout: float = 5) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url, db_pool_timeout=pool_timeout), pool_size=1)
    try:
        yield engine
    finally:
        await engine.dispose()


async def problem(url: str) -> str | None:
    async with engine_of(url) as engine:
        return await readiness_problem(engine)


def grants(role: str) -> Iterator[str]:
    for table, rights in TABLE_RIGHTS.items():
        yield f"GRANT {rights.replace(' ', ', ')} ON {table} TO {role}"
    yield f"GRANT USAGE ON SEQUENCE order_number_seq TO {role}"


@pytest.fixture
async def guest(database_url: str) -> AsyncIterator[str]:
    """The name of a role that has exactly the rights that the service needs."""
    role = f"guest_{uuid4().hex[:12]}"
    async with driver_connection(database_url) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN")
        for grant in grants(role):
            await connection.execute(grant)
        yield role
        await connection.execute(f"DROP OWNED BY {role}")
        await connection.execute(f"DROP ROLE {role}")


def url_of(database_url: str, role: str) -> str:
    return async_url(database_url).set(username=role).render_as_string(hide_password=False)


def test_rights_are_needed_on_every_table_of_the_server() -> None:
    # Only `commerce relay` uses its cursors.
    assert TABLE_RIGHTS.keys() == metadata.tables.keys() - {"relay_cursors"} | {"alembic_version"}


async def test_the_listed_rights_are_enough(database_url: str, guest: str) -> None:
    url = url_of(database_url, guest)
    assert await problem(url) is None
    async with serving_clients(url) as clients:
        for method, request in GOOD_REQUESTS.items():
            await call(clients.channel, method, await request(clients))
        await clients.users.ImportUsers(iter(import_requests()))
        export: Any = clients.orders.ExportOrders(orders_pb.ExportOrdersRequest())
        assert [response async for response in export]
        async with watch_users(clients, earliest=True) as past, watch_users(clients, now=True) as live:
            assert await past.events(1)
            await live.checkpoint()
            user = await clients.create_user()
            (event,) = await live.events(1)
            assert event.user_id == user.id


def import_requests() -> Iterator[users_pb.ImportUsersRequest]:
    yield users_pb.ImportUsersRequest(config=UserImportConfig())
    yield users_pb.ImportUsersRequest(row=UserImportRow(email="ada@example.com", username="ada", password=PASSWORD))


@pytest.mark.parametrize(
    ("revoked", "named"),
    [
        ("INSERT ON events", "INSERT on events"),
        ("SELECT, UPDATE ON request_ids", "SELECT on request_ids, UPDATE on request_ids"),
        ("USAGE ON SEQUENCE order_number_seq", "USAGE on order_number_seq"),
        ("SELECT ON alembic_version", "SELECT on alembic_version"),
    ],
)
async def test_a_missing_right_is_named(database_url: str, guest: str, revoked: str, named: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute(f"REVOKE {revoked} FROM {guest}")
    assert await problem(url_of(database_url, guest)) == f"the user in DATABASE_URL lacks rights: {named}"


async def test_a_missing_right_to_a_function_is_named(database_url: str, guest: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM public")
        called = await connection.fetch(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " AND prorettype <> 'trigger'::regtype ORDER BY proname"
        )
    named = ", ".join(f"EXECUTE on {name}" for (name,) in called)
    assert await problem(url_of(database_url, guest)) == f"the user in DATABASE_URL lacks rights: {named}"


async def test_a_missing_right_to_connect_is_named(database_url: str, guest: str) -> None:
    name = async_url(database_url).database
    async with driver_connection(database_url) as connection:
        await connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM public')
    found = await problem(url_of(database_url, guest))
    assert found == f'the user in DATABASE_URL lacks a right: permission denied for database "{name}"'


async def test_a_missing_right_to_the_schema_is_named(database_url: str, guest: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute("REVOKE USAGE ON SCHEMA public FROM public")
    assert "lacks rights: USAGE on schema public" in str(await problem(url_of(database_url, guest)))


async def test_a_read_only_database_is_not_ready(database_url: str) -> None:
    name = async_url(database_url).database
    async with engine_of(database_url) as engine, driver_connection(database_url) as connection:
        assert await readiness_problem(engine) is None
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        assert "read-only" in str(await problem(database_url))
        # The connection that was read-only is not used again.
        async with engine_of(database_url) as other:
            assert "read-only" in str(await readiness_problem(other))
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            assert await readiness_problem(other) is None


async def test_another_encoding_is_not_ready(postgres_url: str) -> None:
    name = f"latin_{uuid4().hex[:12]}"
    async with driver_connection(postgres_url) as connection:
        await connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
        )
        try:
            assert "the database has the encoding LATIN1" in str(
                await problem(async_url(postgres_url).set(database=name).render_as_string(hide_password=False))
            )
        finally:
            await connection.execute(f"DROP DATABASE {name}")


async def test_a_full_pool_is_no_problem(database_url: str) -> None:
    async with engine_of(database_url, pool_timeout=0.1) as engine, engine.connect():
        with pytest.raises(Overloaded):
            await readiness_problem(engine)


async def test_a_database_without_a_free_connection_is_no_lasting_problem(database_url: str) -> None:
    database = Database(load(DatabaseSettings, DATABASE_URL=database_url, db_pool_timeout=0.1), None)
    try:
        assert await database.lasting_problem() is None
        # The probe has one connection; one of two concurrent probes finds none free.
        assert set(await asyncio.gather(database.lasting_problem(), database.lasting_problem())) == {None}
    finally:
        await database.close()
