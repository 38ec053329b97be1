from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from service.config import DatabaseSettings, load
from service.db.database import Database
from service.domain.users import User, UserFields
from service.server import MESSAGE_ENCODERS
from tests.support.databases import driver_connection
from tests.support.waiting import eventually

# With this, idle_in_transaction_session_timeout would end the transaction too late for the test.
STATEMENT_TIMEOUT_SECONDS = 300


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with driver_connection(database_url) as connection:
        if connection.get_server_version().major < 17:
            pytest.skip("transaction_timeout came with PostgreSQL 17")
        yield connection


async def test_a_transaction_that_nothing_else_ends_is_ended_by_the_database(
    database_url: str, connection: asyncpg.Connection
) -> None:
    async def transactions() -> list[str]:
        rows = await connection.fetch(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL"
        )
        return [row["state"] for row in rows]

    async def none() -> bool:
        return not await transactions()

    # One connection: the lost one must make room for another.
    limits = {"db_statement_timeout": STATEMENT_TIMEOUT_SECONDS, "db_pool_size": 1}
    settings = load(DatabaseSettings, DATABASE_URL=database_url, **limits)
    store = Database(settings, MESSAGE_ENCODERS)
    ada, grace = (
        User.create(UserFields(email=f"{name}@example.com", username=name), datetime.now(UTC))
        for name in ("ada", "grace")
    )
    try:
        async with store.unit_of_work(actor="test", request=None, time_left=lambda: 0.5) as uow:
            await uow.users.add(ada, "$argon2id$none")
            assert await transactions() == ["idle in transaction"]
            # As if the process hung here: the transaction ends, and with it what it blocks, every watcher among others.
            await eventually(none)
        async with store.unit_of_work(actor="test", request=None, time_left=lambda: 10) as uow:
            await uow.users.add(grace, "$argon2id$none")
            await uow.commit(b"")
        assert await connection.fetchval("SELECT array_agg(username) FROM users") == ["grace"]
    finally:
        await store.close()
