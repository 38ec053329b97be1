"""Events in a database that was restored from a dump, or whose primary was lost with its last events."""

import base64
import hashlib
import hmac
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import grpc
import pytest

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.events.relay_cursor import active_relay
from service.db.operations import migrate
from service.db.operations.readiness import readiness_problem
from service.devtools.embedded_postgres import embedded_postgres
from service.server import StartError
from tests.support.clients import Clients
from tests.support.databases import cloned, driver_connection
from tests.support.dumps import dump, restore
from tests.support.failures import fails
from tests.support.processes import run_command
from tests.support.replicas import copy_of, running_replica
from tests.support.servers import OwnServer, running_server, serving_clients
from tests.support.waiting import eventually
from tests.support.watching import committed_event_ids, ids, insert_events, watch_orders

ADVANCE = "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
POSITIONS = "SELECT id::text FROM events ORDER BY xid, position"


@pytest.fixture(scope="module")
def young_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a cluster that has counted fewer transactions than the one that the tests use."""
    with embedded_postgres(tmp_path_factory.mktemp("young")) as url:
        yield url


@pytest.fixture
async def young_url(young_cluster: str) -> AsyncIterator[str]:
    """URL of an empty database there."""
    async with driver_connection(young_cluster) as connection:
        await connection.execute("CREATE DATABASE restored")
        yield young_cluster.replace("/postgres?", "/restored?")
        await connection.execute("DROP DATABASE restored WITH (FORCE)")


async def confirm(clients: Clients, order_id: str) -> None:
    await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))


async def refused_cursor(clients: Clients, cursor: str) -> str:
    """Return the cursor that a watch may start from instead."""
    async with watch_orders(clients, cursor=cursor) as stream:
        with fails(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED") as failure:
            await stream.next()
    return str(failure.metadata["earliest_cursor"])


async def problem_of(url: str) -> str | None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=url), pool_size=1)
    try:
        return await readiness_problem(engine)
    finally:
        await engine.dispose()


async def test_events_restored_into_a_younger_cluster_are_read_before_the_new_ones(
    own: OwnServer, young_url: str, tmp_path: Path
) -> None:
    await own.connection.execute(ADVANCE)
    order = await own.clients.create_order((await own.clients.create_user()).id)
    async with watch_orders(own.clients, earliest=True) as stream:
        (created,) = await stream.events(1)
        old_cursor = stream.cursor
    # A relay that has published all of this.
    publish = "INSERT INTO relay_cursors (name, xid, position) SELECT 'all', xid, position FROM events"
    await own.connection.execute(f"{publish} ORDER BY xid DESC, position DESC LIMIT 1")
    await dump(own.database_url, tmp_path / "all.sql")
    await restore(young_url, tmp_path / "all.sql")

    assert "commerce restore-events" in (await problem_of(young_url) or "")
    with pytest.raises(StartError, match="restore-events"):
        async with running_server(young_url):
            pass
    ended = await run_command("restore-events", database_url=young_url)
    assert ended.status == 0, ended
    assert await problem_of(young_url) is None

    async with serving_clients(young_url) as clients, driver_connection(young_url) as connection:
        earliest = await refused_cursor(clients, old_cursor)
        await confirm(clients, order.id)
        other = await clients.create_order(order.user_id)
        async with watch_orders(clients, cursor=earliest) as stream:
            events = await stream.events(1)
            middle = stream.cursor
            events += await stream.events(2)
        assert [event.order_id for event in events] == [order.id, order.id, other.id]
        assert ids(events) == await committed_event_ids(connection)
        assert events[0].id == created.id
        async with watch_orders(clients, cursor=middle) as stream:
            assert ids(await stream.events(2)) == ids(events[1:])
        async with watch_orders(clients, now=True) as stream:
            await stream.checkpoint()
            await confirm(clients, other.id)
            assert [event.order_id for event in await stream.events(1)] == [other.id]
        engine = create_engine(load(DatabaseSettings, DATABASE_URL=young_url), pool_size=1)
        async with active_relay(engine, "all") as relay:
            page = await relay.page(await relay.cursor())
            assert [str(event.id) for _, event in page.events] == [
                row["id"] for row in (await connection.fetch(POSITIONS))[2:]
            ]
        await engine.dispose()


async def test_restoring_again_makes_all_cursors_invalid_and_hides_no_event(own: OwnServer) -> None:
    order = await own.clients.create_order((await own.clients.create_user()).id)
    cursors = []
    for _ in range(2):
        async with watch_orders(own.clients, now=True) as stream:
            cursors.append(await stream.checkpoint())
        ended = await run_command("restore-events", database_url=own.database_url)
        assert ended.status == 0, ended
    await confirm(own.clients, order.id)
    for cursor in cursors:
        earliest = await refused_cursor(own.clients, cursor)
        async with watch_orders(own.clients, cursor=earliest) as stream:
            events = await stream.events(
                await own.connection.fetchval("SELECT count(*) FROM events WHERE status <> ''")
            )
        assert ids(events) == await committed_event_ids(own.connection)


def cursor_of_an_earlier_release(key: bytes, xid: int, position: int) -> str:
    """Return a cursor of orders that names neither its database nor its event."""
    scope = hashlib.sha256(b"cursor\0commerce.orders.v1.OrderService").digest()
    payload = struct.pack(">QQ", xid, position)
    mac = hmac.digest(key, scope + payload, "sha256")[:16]
    return base64.urlsafe_b64encode(mac + payload).decode().rstrip("=")


async def test_a_cursor_of_an_earlier_release_is_valid_until_the_first_restore(
    database_url: str, connection: asyncpg.Connection
) -> None:
    (first, second) = await insert_events(connection, 2)
    key = await connection.fetchval("SELECT key FROM signing_keys")
    row = await connection.fetchrow("SELECT xid::text::bigint AS xid, position FROM events WHERE id = $1", UUID(first))
    cursor = cursor_of_an_earlier_release(key, **row)
    async with serving_clients(database_url) as clients:
        async with watch_orders(clients, cursor=cursor) as stream:
            assert ids(await stream.events(1)) == [second]
        # From a cluster that has counted more transactions.
        await refused_cursor(clients, cursor_of_an_earlier_release(key, row["xid"] + 1_000_000, row["position"]))
        assert (await run_command("restore-events", database_url=database_url)).status == 0
        await refused_cursor(clients, cursor)


async def test_a_cursor_is_not_valid_in_a_copy_of_its_database(postgres_url: str, database_url: str) -> None:
    async with serving_clients(database_url) as clients, watch_orders(clients, now=True) as stream:
        cursor = await stream.checkpoint()
    async with cloned(postgres_url, database_url) as url, serving_clients(url) as clients:
        await refused_cursor(clients, cursor)


async def test_an_older_schema_is_not_changed(empty_database_url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=empty_database_url), pool_size=1)
    await migrate.upgrade(engine, "0019")
    await engine.dispose()
    ended = await run_command("restore-events", database_url=empty_database_url)
    assert (ended.status, ended.stderr) == (
        1,
        f"Error: the schema is at revision 0019, and this build needs {migrate.head()}: run `commerce migrate`\n",
    )


async def test_a_promoted_standby_continues_a_watch_from_the_events_that_it_has_and_refuses_lost_ones(
    tmp_path: Path,
) -> None:
    with embedded_postgres(tmp_path / "primary") as primary:
        engine = create_engine(load(DatabaseSettings, DATABASE_URL=primary), pool_size=1)
        await migrate.upgrade(engine)
        await engine.dispose()
        await copy_of(primary, tmp_path / "standby")
        with running_replica(tmp_path / "standby") as standby:
            async with serving_clients(primary) as clients:
                order = await clients.create_order((await clients.create_user()).id)
                async with watch_orders(clients, earliest=True) as stream:
                    await stream.events(1)
                    replicated = stream.cursor
                    await standby.until_replayed(primary)
                    async with driver_connection(standby.url) as there:
                        await there.execute("ALTER SYSTEM SET primary_conninfo = ''")
                        await there.execute("SELECT pg_reload_conf()")
                        await eventually(lambda: there.fetchval("SELECT count(*) = 0 FROM pg_stat_wal_receiver"))
                    for _ in range(20):
                        await clients.create_order(order.user_id)
                    await stream.events(20)
                    lost = stream.cursor
            async with driver_connection(standby.url) as there:
                await there.execute("SELECT pg_promote()")
                async with serving_clients(standby.url) as clients:
                    await confirm(clients, order.id)
                    another = await clients.create_order(order.user_id)
                    # Otherwise, new events would be taken for some of those that the watch has seen.
                    async with watch_orders(clients, cursor=await refused_cursor(clients, lost)) as stream:
                        seen = await stream.events(3)
                    assert [event.order_id for event in seen] == [order.id, order.id, another.id]
                    async with watch_orders(clients, cursor=replicated) as stream:
                        assert ids(await stream.events(2)) == ids(seen[1:])
                        cursor = stream.cursor
                    async with watch_orders(clients, cursor=cursor) as stream:
                        await confirm(clients, another.id)
                        assert [event.order_id for event in await stream.events(1)] == [another.id]
