import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import grpc
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.retention import delete_expired_events
from tests.support.command import invoke_command
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.servers import serving_clients
from tests.support.watching import committed_event_ids, ids, insert_events, watch_orders, watch_users

NOW = timedelta(0)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=2)
    yield engine
    await engine.dispose()


async def test_a_cursor_before_deleted_events_is_out_of_range_and_the_earliest_one_works(
    database_url: str, connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    async with serving_clients(database_url) as clients:
        async with watch_orders(clients, now=True) as stream:
            cursor = await stream.checkpoint()
        await insert_events(connection, 3)
        assert await delete_expired_events(engine, NOW) == 3
        kept = await insert_events(connection, 2)
        async with watch_orders(clients, cursor=cursor) as stream:
            with fails(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED") as failure:
                await stream.next()
        assert list(failure.metadata) == ["earliest_cursor"]
        async with watch_orders(clients, cursor=failure.metadata["earliest_cursor"]) as stream:
            assert ids(await stream.events(2)) == kept
        async with watch_orders(clients, earliest=True) as stream:
            assert ids(await stream.events(2)) == kept


async def test_a_watch_from_the_earliest_event_waits_for_the_next_one_if_all_were_deleted(
    database_url: str, connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    async with serving_clients(database_url, watch_checkpoint_interval=1000.0) as clients:
        await insert_events(connection, 3)
        async with watch_orders(clients, now=True) as stream, watch_orders(clients, earliest=True) as another:
            await stream.checkpoint()
            await another.events(3)
            assert await delete_expired_events(engine, NOW) == 3
            async with watch_orders(clients, earliest=True) as late:
                await late.checkpoint()
                response = asyncio.ensure_future(late.next())
                # The position of the deletion is that of the last event, which the other watchers wait after: this
                # one waits with them, and does not get one checkpoint after the other.
                _, waiting = await asyncio.wait([response], timeout=1)
                assert waiting
                (event,) = await insert_events(connection)
                assert (await response).event.id == event


async def test_a_watcher_that_has_read_the_deleted_events_goes_on(
    database_url: str, connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    async with serving_clients(database_url) as clients, watch_orders(clients, earliest=True) as stream:
        seen = await insert_events(connection, 3)
        assert ids(await stream.events(3)) == seen
        assert await delete_expired_events(engine, NOW) == 3
        seen = await insert_events(connection)
        assert ids(await stream.events(1)) == seen
        # A watch of the other service, from the same position.
        async with watch_users(clients, now=True) as users:
            await users.checkpoint()


async def test_events_are_deleted_in_batches_in_their_order_up_to_the_first_young_one(
    connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await insert_events(connection, 2500)
    await connection.execute("ALTER TABLE events DISABLE TRIGGER events_append_only")
    await connection.execute("UPDATE events SET create_time = now() - interval '2 days' WHERE position <> 2301")
    everything = [str(row["id"]) for row in await connection.fetch("SELECT id FROM events ORDER BY position")]
    assert await delete_expired_events(engine, timedelta(days=3)) == 0
    # The update of the rows has not changed the positions of the events.
    assert await delete_expired_events(engine, timedelta(days=1)) == 2300
    assert await committed_event_ids(connection) == everything[2300:]
    mark = await connection.fetchrow("SELECT position FROM swept_events")
    assert mark["position"] == 2300


async def test_no_event_is_deleted_beyond_a_running_transaction(
    database_url: str, connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    async with driver_connection(database_url) as slow:
        transaction = slow.transaction()
        await transaction.start()
        await insert_events(slow)
        await insert_events(connection)
        assert await delete_expired_events(engine, NOW) == 0
        await transaction.commit()
    assert await delete_expired_events(engine, NOW) == 2


async def test_events_that_a_relay_has_not_published_are_not_deleted(
    connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await insert_events(connection)
    await connection.execute("INSERT INTO relay_cursors (name, xid, position) SELECT 'nats', xid, position FROM events")
    kept = await insert_events(connection, 2)
    assert await delete_expired_events(engine, NOW) == 1
    assert await committed_event_ids(connection) == kept
    await connection.execute("DELETE FROM relay_cursors")
    assert await delete_expired_events(engine, NOW) == 2


async def test_a_second_run_leaves_the_deletion_to_the_first(
    connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await insert_events(connection)
    async with connection.transaction():
        await connection.execute("SELECT FROM swept_events FOR UPDATE")
        assert await delete_expired_events(engine, NOW) == 0
    assert await delete_expired_events(engine, NOW) == 1


async def test_gc_keeps_events_for_the_retention_period(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    await insert_events(connection, 2)
    await connection.execute("ALTER TABLE events DISABLE TRIGGER events_append_only")
    await connection.execute("UPDATE events SET create_time = now() - interval '89 days'")

    async def gc_output() -> str:
        ran = await invoke_command("gc")
        assert ran.status == 0, ran
        (line,) = (line for line in ran.stdout.splitlines() if line.endswith(" expired events"))
        return line

    assert await gc_output() == "deleted 0 expired events"
    monkeypatch.setenv("COMMERCE_EVENT_RETENTION_DAYS", "88")
    assert await gc_output() == "deleted 2 expired events"
