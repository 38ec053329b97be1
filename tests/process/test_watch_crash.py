import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator

import commerce.orders.v1.order_service_pb2 as pb
import grpc
import pytest

from tests.support.clients import Clients, connect, new_order
from tests.support.databases import driver_connection
from tests.support.processes import free_port, running_command
from tests.support.servers import serving_clients
from tests.support.watching import Stream

# For more kills: COMMERCE_TEST_KILLS=20 pytest tests/process/test_watch_crash.py
KILLS = int(os.environ.get("COMMERCE_TEST_KILLS", "3"))
EVENTS_BETWEEN_KILLS = 30
PATIENCE_SECONDS = 60 + 20 * KILLS


class Consumer:
    """Reads every order event, and remembers each with its cursor, as if it stored both in one transaction."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.cursor = ""
        self.reconnects = 0

    async def run(self, clients: Clients) -> None:
        """Watch, and resume from the last cursor whenever the stream breaks."""
        while True:
            start = {"cursor": self.cursor} if self.cursor else {"earliest": True}
            stream = Stream(clients.orders.WatchOrders(pb.WatchOrdersRequest(**start), wait_for_ready=True))
            try:
                while True:
                    response = await stream.next()
                    if response.WhichOneof("content") == "event":
                        self.seen.append((response.event.order_id, response.event.id))
                    self.cursor = response.cursor
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self.reconnects += 1


async def write(clients: Clients, user_id: str, stop: asyncio.Event) -> None:
    """Create and confirm orders until told to stop, through failures of the server."""
    while not stop.is_set():
        try:
            created = await clients.orders.CreateOrder(pb.CreateOrderRequest(order=new_order(user_id)), timeout=20)
            await clients.orders.ConfirmOrder(pb.ConfirmOrderRequest(id=created.order.id), timeout=20)
        except grpc.aio.AioRpcError as error:
            # A call interrupted by a kill may have been committed or not: both are correct.
            if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise
            await asyncio.sleep(0.05)


@pytest.fixture
async def survivor(database_url: str) -> AsyncIterator[Clients]:
    """Clients of another server on the same database, which is not killed."""
    async with serving_clients(database_url) as clients:
        yield clients


async def test_a_consumer_with_its_cursor_sees_every_event_once_through_kills(
    database_url: str, survivor: Clients
) -> None:
    user = await survivor.create_user()
    port = free_port()
    consumer, stop = Consumer(), asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS), connect(port) as clients:
        writers = [asyncio.create_task(write(one, user.id, stop)) for one in (survivor, survivor, clients, clients)]
        consuming = asyncio.create_task(consumer.run(clients))
        try:
            for _ in range(KILLS):
                async with running_command("serve", "--port", str(port), database_url=database_url) as server:
                    enough = len(consumer.seen) + EVENTS_BETWEEN_KILLS
                    while len(consumer.seen) < enough:
                        assert server.running, server.stderr()
                        assert not consuming.done(), consuming
                        await asyncio.sleep(0.01)
                    # While the consumer reads and others write.
                    server.kill()
            async with running_command("serve", "--port", str(port), database_url=database_url):
                stop.set()
                await asyncio.gather(*writers)
                async with driver_connection(database_url) as connection:
                    rows = await connection.fetch(
                        "SELECT aggregate_id, id, position FROM events WHERE aggregate_type = 'order'"
                        " ORDER BY xid, position"
                    )
                while len(consumer.seen) < len(rows):
                    assert not consuming.done(), consuming
                    await asyncio.sleep(0.01)
        finally:
            for task in (consuming, *writers):
                task.cancel()
            await asyncio.gather(consuming, *writers, return_exceptions=True)

    assert consumer.reconnects >= KILLS
    assert len(rows) >= KILLS * EVENTS_BETWEEN_KILLS
    assert consumer.seen == [(str(row["aggregate_id"]), str(row["id"])) for row in rows]
    seen_of, written_of = defaultdict(list), defaultdict(list)
    for order_id, event_id in consumer.seen:
        seen_of[order_id].append(event_id)
    for row in sorted(rows, key=lambda row: int(row["position"])):
        written_of[str(row["aggregate_id"])].append(str(row["id"]))
    assert seen_of == written_of
