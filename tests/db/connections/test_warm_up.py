"""A server opens some connections before it is ready."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import commerce.users.v1.user_service_pb2 as pb
import pytest

from service.db.connections.engine import async_url
from tests.support.clients import connect
from tests.support.databases import Observer
from tests.support.logs import Log
from tests.support.servers import running_server, serving_clients

TOO_FEW = "opened fewer connections than COMMERCE_DB_POOL_MIN_SIZE"
# The readiness probe has a connection of its own.
PROBE = 1


async def test_the_first_calls_find_connections(database_url: str, observer: Observer) -> None:
    async with running_server(database_url, db_pool_size=6, db_pool_min_size=6) as server:
        opened = await observer.backends()
        assert len(opened) == 6 + PROBE
        async with connect(server.port) as clients:
            await asyncio.gather(*(clients.create_user() for _ in range(30)))
        assert await observer.backends() == opened


@pytest.mark.parametrize(("size", "minimum", "opened"), [(2, 4, 2), (10, 0, 1), (10, 3, 3)])
async def test_no_more_are_opened_than_the_settings_say(
    database_url: str, observer: Observer, size: int, minimum: int, opened: int
) -> None:
    # With a minimum of 0, the signing key is read on one.
    async with running_server(database_url, db_pool_size=size, db_pool_min_size=minimum):
        assert len(await observer.backends()) == opened + PROBE


@pytest.fixture
async def limited_url(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[str]:
    """URL with a role that may have three connections."""
    role = f"few_{uuid4().hex[:12]}"
    await connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 3 IN ROLE pg_read_all_data, pg_write_all_data")
    await connection.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    yield async_url(database_url).set(username=role).render_as_string(hide_password=False)
    await connection.execute(f"DROP OWNED BY {role}")
    await connection.execute(f"DROP ROLE {role}")


async def test_a_server_starts_with_fewer_if_postgresql_allows_no_more(limited_url: str, log: Log) -> None:
    async with serving_clients(limited_url, db_pool_min_size=4) as clients:
        (line,) = log.lines(event=TOO_FEW)
        assert (line["wanted"], line["opened"]) == (4, 2)
        assert "no free connections" in line["problem"]
        user = await clients.create_user()
        await clients.users.GetUser(pb.GetUserRequest(id=user.id))
