"""NATS servers with JetStream, and what relays have published to them."""

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import nats
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from tests.support.processes import PATIENCE_SECONDS, Process, free_port, running_program
from tests.support.waiting import eventually

_PROGRAM = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"


class Broker:
    """A NATS server with JetStream; its data survives a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Process]:
        """Run it until the block ends."""
        arguments = ("-js", "-sd", str(self._folder), "-a", "127.0.0.1", "-p", str(self.port))
        async with running_program(_PROGRAM, *arguments) as process:
            await process.until_written("Server is ready")
            yield process

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """Connect to it until the block ends."""
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
        """Return the number of messages in the stream."""
        async with self.jetstream() as jetstream:
            return (await jetstream.stream_info("commerce")).state.messages


async def _subscribed(jetstream: JetStreamContext) -> JetStreamContext.PushSubscription | None:
    try:
        return await jetstream.subscribe("commerce.>", ordered_consumer=True)
    except NotFoundError:
        # The relay has not created the stream yet.
        return None


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
