import asyncio
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as pb
import nats
import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from service.relay import cloud_event
from tests.support.clients import Clients
from tests.support.metrics_pages import Page, read_page
from tests.support.processes import PATIENCE_SECONDS, Process, free_port, run_command, running_command, running_program
from tests.support.proxies import proxy_to
from tests.support.servers import serving_clients
from tests.support.waiting import eventually
from tests.support.watching import insert_events

BROKER = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"


class Broker:
    """A NATS server with JetStream; its data survives a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Process]:
        arguments = ("-js", "-sd", str(self._folder), "-a", "127.0.0.1", "-p", str(self.port))
        async with running_program(BROKER, *arguments) as process:
            await process.until_written("Server is ready")
            yield process

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        client = await nats.connect(self.url, allow_reconnect=False)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def messages(self, count: int) -> list[Any]:
        """Return the first messages of the stream, waiting for them."""
        async with self.jetstream() as jetstream:
            subscription = await eventually(lambda: _subscribed(jetstream))
            return [await subscription.next_msg(timeout=PATIENCE_SECONDS) for _ in range(count)]

    async def count(self) -> int:
        async with self.jetstream() as jetstream:
            return (await jetstream.stream_info("commerce")).state.messages


async def _subscribed(jetstream: JetStreamContext) -> JetStreamContext.PushSubscription | None:
    try:
        return await jetstream.subscribe("commerce.>", ordered_consumer=True)
    except NotFoundError:
        # The relay has not created the stream yet.
        return None


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path / "jetstream")


@asynccontextmanager
async def relay(database_url: str, broker: Broker, **settings: Any) -> AsyncIterator[Process]:
    async with running_command("relay", "--nats-url", broker.url, database_url=database_url, **settings) as process:
        yield process


async def written(connection: asyncpg.Connection) -> dict[str, list[str]]:
    """Return the ids of all events for each aggregate, in their order."""
    by_aggregate = defaultdict(list)
    for row in await connection.fetch("SELECT aggregate_id, id FROM events ORDER BY xid, position"):
        by_aggregate[str(row["aggregate_id"])].append(str(row["id"]))
    return by_aggregate


def arrived(messages: list[Any]) -> dict[str, list[str]]:
    """Return the ids of the messages for each aggregate, in the order of their first arrival."""
    by_aggregate: defaultdict[str, list[str]] = defaultdict(list)
    for message in messages:
        event = json.loads(message.data)
        assert message.headers["Nats-Msg-Id"] == event["id"]
        if event["id"] not in by_aggregate[event["partitionkey"]]:
            by_aggregate[event["partitionkey"]].append(event["id"])
    return by_aggregate


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
