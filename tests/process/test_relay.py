import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as pb
import pytest

from service.relay import cloud_event
from tests.support.brokers import Broker, arrived, written
from tests.support.clients import Clients
from tests.support.metrics_pages import Page, read_page
from tests.support.processes import Process, run_command, running_command
from tests.support.proxies import proxy_to
from tests.support.servers import serving_clients
from tests.support.waiting import eventually
from tests.support.watching import insert_events


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path / "jetstream")


@asynccontextmanager
async def relay(database_url: str, broker: Broker, **settings: Any) -> AsyncIterator[Process]:
    async with running_command("relay", "--nats-url", broker.url, database_url=database_url, **settings) as process:
        yield process


async def published(port: int) -> Page | None:
    page = await read_page(port)
    return page if page.total("commerce_relay_published_total") == 2 else None


async def caught_up(port: int) -> bool:
    return (await read_page(port)).values("commerce_relay_lag_seconds") == {(): 0}


async def test_events_arrive_as_cloud_events(database_url: str, broker: Broker, connection: asyncpg.Connection) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        order = await clients.create_order(user.id)
    async with broker.up(), relay(database_url, broker, metrics_port=0) as process:
        of_user, of_order = await broker.messages(2)
        port = (await process.until_logged("serving metrics"))["port"]
        page = await eventually(lambda: published(port))
        assert page.values("commerce_relay_active") == {(): 1}
        assert page.total("process_resident_memory_bytes")
        await eventually(lambda: caught_up(port))
    assert (of_user.subject, of_order.subject) == ("commerce.user.CREATED", "commerce.order.CREATED")
    assert of_order.headers["Content-Type"] == "application/cloudevents+json"
    row = await connection.fetchrow("SELECT * FROM events WHERE aggregate_type = 'order'")
    assert json.loads(of_order.data) == {
        "specversion": "1.0",
        "id": str(row["id"]),
        "source": "/commerce",
        "type": "commerce.order.CREATED",
        "subject": f"orders/{order.id}",
        "time": row["create_time"].isoformat(),
        "partitionkey": order.id,
        "actor": "anonymous",
        "datacontenttype": "application/json",
        "data": {"changes": [], "user_id": user.id, "status": "PENDING"},
    }


def test_the_user_for_whom_an_actor_acted_is_an_extension() -> None:
    row: Any = SimpleNamespace(
        id=uuid4(),
        aggregate_type="user",
        aggregate_id=uuid4(),
        type="UPDATED",
        actor="key:billing",
        on_behalf_of=uuid4(),
        create_time=datetime(2026, 1, 2, tzinfo=UTC),
        changes=[],
    )
    event = json.loads(cloud_event(row))
    assert (event["actor"], event["onbehalfof"]) == ("key:billing", str(row.on_behalf_of))
    row.on_behalf_of = None
    assert "onbehalfof" not in json.loads(cloud_event(row))


async def test_every_event_arrives_through_kills_of_the_relay_and_the_broker(
    database_url: str, broker: Broker, connection: asyncpg.Connection
) -> None:
    async def write(clients: Clients, user_id: str) -> None:
        for _ in range(30):
            order = await clients.create_order(user_id)
            for request in (pb.ConfirmOrderRequest(id=order.id), pb.ProcessOrderRequest(id=order.id)):
                method = type(request).__name__.removesuffix("Request")
                await getattr(clients.orders, method)(request)

    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        writers = asyncio.gather(*(write(clients, user.id) for _ in range(3)))
        async with broker.up() as first_broker:
            async with relay(database_url, broker) as killed:
                await broker.messages(20)
                killed.kill()
            async with relay(database_url, broker) as survivor:
                await survivor.until_written("relaying")
                first_broker.kill()
                # The relay must have something to publish, or it would not notice.
                await insert_events(connection, 700)
                await survivor.until_written("relay interrupted")
                async with broker.up():
                    await writers
                    everything = await written(connection)
                    count = sum(map(len, everything.values()))
                    messages = await broker.messages(count)
                    # Duplicates are among them, so more messages than events must be read.
                    while arrived(messages) != everything and len(messages) < 2 * count:
                        messages = await broker.messages(len(messages) + 1)
                    assert (await survivor.terminate()).status == 0
    assert count == 1 + 270 + 700
    assert arrived(messages) == everything


async def _is_tried_for(connection: asyncpg.Connection) -> bool:
    """Return whether a relay is trying to get the lock: the relay that has it executes other statements."""
    statement = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'commerce'
    AND query LIKE '%pg_try_advisory_lock%'
    """
    return bool(await connection.fetchval(statement))


async def test_a_second_relay_waits_until_the_first_is_gone(
    database_url: str, broker: Broker, connection: asyncpg.Connection
) -> None:
    async with broker.up(), relay(database_url, broker) as first:
        await first.until_written("relaying")
        async with relay(database_url, broker) as second:
            await eventually(lambda: _is_tried_for(connection))
            await insert_events(connection, 3)
            await broker.messages(3)
            assert "relaying" not in second.stderr()
            first.kill()
            await second.until_written("relaying")
            await insert_events(connection, 2)
            messages = await broker.messages(5)
            assert await broker.count() == 5
    assert arrived(messages) == await written(connection)


async def test_a_relay_goes_on_after_its_connections_to_the_database_are_cut(
    database_url: str, broker: Broker, connection: asyncpg.Connection
) -> None:
    async with broker.up(), relay(database_url, broker) as process:
        await insert_events(connection, 2)
        await broker.messages(2)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'commerce'"
        )
        await insert_events(connection, 2)
        messages = await broker.messages(4)
        assert (await process.terminate()).status == 0
    assert arrived(messages) == await written(connection)


async def test_a_relay_ends_in_time_although_its_database_does_not_answer(database_url: str, broker: Broker) -> None:
    async with proxy_to(database_url) as proxy, broker.up(), relay(proxy.url, broker) as process:
        await process.until_written("relaying")
        proxy.fall_silent(new_too=True)
        started = time.monotonic()
        result = await process.terminate()
    # A statement may wait for 35 s for an answer.
    assert time.monotonic() - started < 20, result
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "COMMERCE_NATS_URL is not set"),
        (("--nats-url", "nats://127.0.0.1:1"), "cannot use the NATS server at COMMERCE_NATS_URL"),
        (("--nats-url", "nats://127.0.0.1:1", "--stream", "a b"), "COMMERCE_RELAY_STREAM is wrong"),
    ],
    ids=["no broker", "unreachable broker", "wrong stream"],
)
async def test_a_configuration_error_is_one_line(database_url: str, arguments: tuple[str, ...], words: str) -> None:
    result = await run_command("relay", *arguments, database_url=database_url)
    assert result.status == 1
    assert result.stderr.startswith(f"Error: {words}")
    assert result.stderr.count("\n") == 1
