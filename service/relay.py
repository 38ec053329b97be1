"""`commerce relay`: publishes events to NATS JetStream as CloudEvents.

Every event is published at least once, and the events of each user or order are published in sequence: an event that
JetStream has not acknowledged is published again before any later event of the same user or order. A repeated event has
the same id, which is also the message's `Nats-Msg-Id`, so JetStream drops duplicates within the stream's duplicate
window.

After any failure the relay starts again from its stored cursor. The cursor advances only after JetStream has
acknowledged the events.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import nats
import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from sqlalchemy.exc import DBAPIError

from service.application.ports.errors import Overloaded, StoreError
from service.application.ports.events import EventPositionExpired
from service.application.ports.queries import Row
from service.config import RelaySettings
from service.db.connections.engine import create_engine
from service.db.events.relay_cursor import RelayLog, active_relay
from service.db.operations.readiness import readiness_problem
from service.observability.logs import where_raised
from service.observability.metrics import catalogue
from service.observability.metrics.process import ProcessMetrics
from service.observability.metrics.snapshot import Snapshot
from service.runtime.retry import Backoff

# The pauses after consecutive interruptions.
BACKOFF = Backoff(base=0.2, factor=2, cap=5.0)
TIMEOUT_SECONDS = 5

_INTERRUPTIONS = (StoreError, Overloaded, DBAPIError, NatsError, OSError)
log = structlog.get_logger()


class RelayError(Exception):
    """The relay cannot start or continue. The message is one line for an operator."""


class Relay:
    """Publishes events: `check`, then `run` until it is cancelled, then `close`."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._process = ProcessMetrics()
        self._is_active = False
        self._published = self._interruptions = 0
        # The oldest event that is being published, or waits for a running transaction.
        self._oldest: datetime | None = None
        self._engine = create_engine(settings, pool_size=1, answer_seconds=TIMEOUT_SECONDS)
        # Consecutive interruptions since the last publication.
        self._failures = 0

    async def check(self) -> None:
        """Raise RelayError if the database or the broker cannot be used."""
        if self._settings.pgbouncer_mode != "none":
            raise RelayError(
                "a relay needs a session lock, which PgBouncer does not support in transaction mode: set DATABASE_URL"
                " to the URL of PostgreSQL itself, and unset COMMERCE_PGBOUNCER_MODE"
            )
        if problem := await readiness_problem(self._engine):
            raise RelayError(problem)
        try:
            async with self._jetstream():
                pass
        except (NatsError, OSError, ValueError) as error:
            raise RelayError(
                "cannot use the NATS server at COMMERCE_NATS_URL: it must be reachable, have JetStream enabled, and"
                f" have the stream {self._settings.relay_stream} or allow creating it"
            ) from error

    async def run(self) -> None:
        """Publish events while no other relay with this name does; after a failure, try again.

        Raises:
            RelayError: events were deleted before they were published.
        """
        name = self._settings.relay_name
        while True:
            try:
                # The lock comes first: a standby has no connection to the NATS server.
                async with active_relay(self._engine, name) as events, self._jetstream() as jetstream:
                    log.info("relaying", name=name, stream=self._settings.relay_stream)
                    self._is_active = True
                    await self._publish_all(events, jetstream)
            except EventPositionExpired as error:
                raise RelayError(
                    f"events after the cursor of relay {name} were deleted; to restart it, delete its cursor"
                ) from error
            except _INTERRUPTIONS as error:
                self._failures += 1
                self._interruptions += 1
                self._is_active = False
                pause = BACKOFF.pause(self._failures)
                log.warning("relay interrupted", retry_in_seconds=round(pause, 1), **where_raised(error))
                await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close all connections."""
        self._process.stop()
        await self._engine.dispose()

    async def take(self) -> Snapshot:
        """Return what the metrics are now, for a port that the command opens if it is wanted."""
        snapshot = Snapshot()
        self._process.add_to(snapshot)
        snapshot.add(catalogue.RELAY_ACTIVE, int(self._is_active))
        snapshot.add(catalogue.RELAY_PUBLISHED, self._published)
        snapshot.add(catalogue.RELAY_INTERRUPTIONS, self._interruptions)
        lag = (datetime.now(UTC) - self._oldest).total_seconds() if self._oldest else 0.0
        snapshot.add(catalogue.RELAY_LAG, max(0.0, lag))
        return snapshot

    def measure(self) -> None:
        """Begin to measure the process, until `close`."""
        self._process.start()

    async def _publish_all(self, events: RelayLog, jetstream: JetStreamContext) -> None:
        position = await events.cursor()
        while True:
            page = await events.page(position)
            # Until it is published, also if that is interrupted.
            self._oldest = page.events[0][1].create_time if page.events else page.waiting_since
            for wave in _waves(event for _, event in page.events):
                sent = await asyncio.gather(
                    *(self._publish(jetstream, event) for event in wave), return_exceptions=True
                )
                for failure in sent:
                    if isinstance(failure, BaseException):
                        raise failure
            if page.events:
                await events.advance(page.end)
                position, self._failures = page.end, 0
                self._published += len(page.events)
                self._oldest = page.waiting_since
            if not page.has_more:
                await asyncio.sleep(self._settings.relay_poll_interval)

    async def _publish(self, jetstream: JetStreamContext, event: Row) -> None:
        await jetstream.publish(
            f"commerce.{event.aggregate_type}.{event.type}",
            cloud_event(event),
            timeout=TIMEOUT_SECONDS,
            stream=self._settings.relay_stream,
            headers={"Nats-Msg-Id": str(event.id), "Content-Type": "application/cloudevents+json"},
        )

    @asynccontextmanager
    async def _jetstream(self) -> AsyncIterator[JetStreamContext]:
        # The client must not reconnect by itself, which could change the order of messages.
        client = await nats.connect(
            self._settings.nats_url.get_secret_value(),
            name=f"commerce relay {self._settings.relay_name}",
            allow_reconnect=False,
            # Otherwise the client would try for two minutes to connect for the first time.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=TIMEOUT_SECONDS,
            error_cb=_ignore,
        )
        try:
            jetstream = client.jetstream(timeout=TIMEOUT_SECONDS)
            try:
                await jetstream.stream_info(self._settings.relay_stream)
            except NotFoundError:
                await jetstream.add_stream(name=self._settings.relay_stream, subjects=["commerce.>"])
            yield jetstream
        finally:
            await client.close()


def cloud_event(event: Row) -> bytes:
    """Return an event in the JSON format of CloudEvents 1.0."""
    data: dict[str, object] = {"changes": event.changes}
    if event.aggregate_type == "order":
        data |= {"user_id": str(event.user_id) if event.user_id else None, "status": event.status}
    attributes = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": "/commerce",
        "type": f"commerce.{event.aggregate_type}.{event.type}",
        "subject": f"{event.aggregate_type}s/{event.aggregate_id}",
        "time": event.create_time.isoformat(),
        # Extensions: the partition key, within which events must stay in order, the actor, and the user for whom the
        # actor acted, if there is one.
        "partitionkey": str(event.aggregate_id),
        "actor": event.actor,
        **({"onbehalfof": str(event.on_behalf_of)} if event.on_behalf_of else {}),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(attributes, separators=(",", ":")).encode()


def _waves(events: Iterable[Row]) -> list[list[Row]]:
    """Split events into waves with at most one event of each user or order, so that a wave can be sent concurrently."""
    waves: defaultdict[int, list[Row]] = defaultdict(list)
    earlier: Counter[object] = Counter()
    for event in events:
        waves[earlier[event.aggregate_id]].append(event)
        earlier[event.aggregate_id] += 1
    return list(waves.values())


async def _ignore(_error: Exception) -> None:
    """Ignore connection errors: those that matter also make a publication fail."""
