"""Servers and relays each of which is in a state that an alert is for, and one that is well."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from commerce.users.v1.user_pb2 import User

from service import server_metrics
from service.config import RelaySettings, load
from service.http.loading_metrics import listening_metrics_port
from service.relay import Relay
from service.rpc.admission import gate
from tests.support.certificates import Authority, replace, write_files
from tests.support.clients import Clients, connect, new_order
from tests.support.databases import cloned, driver_connection, observing
from tests.support.failures import settled
from tests.support.locks import holding
from tests.support.metrics_pages import Page, read_page
from tests.support.policies import EVERYTHING, Guarded, guarded_server
from tests.support.processes import free_port, run_command, running_command, running_program, serving
from tests.support.proxies import proxy_to
from tests.support.servers import running_server
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

# The job of each cause: its alerts fire for it.
HEALTHY, FAILING, SLOW, FULL, CUT = "healthy", "failing", "slow", "full", "cut"
WORKERS, RELAY, STOPPED, UNREACHABLE = "workers", "relay", "stopped", "commerce"
# Few connections, so that all together do not need more than PostgreSQL has.
_SMALL: dict[str, Any] = {"metrics_port": 0, "db_pool_min_size": 0, "db_pool_size": 4}
_BROKER = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
# What a defect of the database would do to each new order.
_BROKEN = """
CREATE FUNCTION break_orders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER break_orders BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION break_orders()
"""
_UNEXPLAINED_CREDIT = "INSERT INTO credit_accounts (user_id, currency, available, held) VALUES ($1, 'EUR', 5, 0)"
_LATE_MAINTENANCE = """
INSERT INTO maintenance_runs (part, successes, failures, handled, success_time)
VALUES ('events', 3, 1, 7, now() - interval '5 hours')
"""
_OLD_EVENT = """
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, status)
SELECT gen_random_uuid(), 'order', gen_random_uuid(), 'CREATED', 'test', now() - interval '90 seconds', '[]'::jsonb,
    'PENDING'
"""
# Anything that writes; until it ends, later events wait.
_WRITE = "SELECT pg_current_xact_id()"


@dataclass
class Causes:
    """What runs.

    Attributes:
        ports: those of the pages of metrics, by the names of the jobs.
    """

    ports: dict[str, int] = field(default_factory=dict)
    _rounds: list[Callable[[], Any]] = field(default_factory=list)

    def again(self, make: Callable[[], Any]) -> None:
        """Let something be done again and again."""
        self._rounds.append(make)

    async def go_on(self) -> None:
        """Do what must happen again and again until cancelled."""
        while True:
            await asyncio.gather(*(make() for make in self._rounds))
            # A defect that keeps the event loop from doing anything else.
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0.5)

    async def pages(self) -> dict[str, Page]:
        """Return the pages that can be read, by the names of the jobs."""
        return {job: await read_page(port) for job, port in self.ports.items() if job != UNREACHABLE}


@asynccontextmanager
async def running_causes(postgres_url: str, template_url: str, folder: Path) -> AsyncIterator[Causes]:
    """Make the causes of all alerts until the block ends."""
    causes = Causes({UNREACHABLE: free_port()})
    async with AsyncExitStack() as stack:
        patches = stack.enter_context(pytest.MonkeyPatch.context())
        # Otherwise it would take longer until what a test has recorded is read again.
        patches.setattr(server_metrics, "_MAINTENANCE_SECONDS", 0.5)
        # Calls that wait for a lock are passed over otherwise, and those behind them run.
        patches.setattr(gate, "STUCK_SECONDS", 600)
        patches.setattr(gate, "_STILL_LOOKS", 100_000)
        urls = [await stack.enter_async_context(cloned(postgres_url, template_url)) for _ in range(3)]
        together = [
            _cut(causes, urls[1], folder),
            _healthy(causes, urls[0]),
            _workers(causes, urls[0]),
            _slow(causes, urls[2], folder),
            _full(causes, urls[1]),
            _failing(causes, postgres_url, template_url, folder),
            _stopped(causes, urls[1]),
        ]
        for one in together:
            await stack.enter_async_context(one)
        yield causes


@asynccontextmanager
async def _healthy(causes: Causes, url: str) -> AsyncIterator[None]:
    """A server, in a process of its own, of which everything is as it should be."""
    commands = (("gc",), ("verify-ledger", "--record"))
    for finished in await asyncio.gather(*(run_command(*command, database_url=url) for command in commands)):
        assert finished.status == 0, finished
    async with serving(url, metrics_port=0) as process:
        causes.ports[HEALTHY] = process.logged("serving")[0]["metrics_port"]
        async with connect(await process.port()) as clients:
            causes.again(lambda: settled(*(_unknown_user(clients) for _ in range(5))))
            yield


@asynccontextmanager
async def _slow(causes: Causes, url: str, folder: Path) -> AsyncIterator[None]:
    """A server whose calls wait for locks, and a relay; a transaction that does not end holds back the events of both.

    It has also answered calls of some kinds: a batched one, a repeated one, a password.
    """
    async with running_server(url, **_SMALL) as server, connect(server.port) as clients:
        user = await clients.create_user()
        request = orders_pb.CreateOrderRequest(order=new_order(user.id), request_id=str(uuid4()))
        for _ in range(2):
            await clients.orders.CreateOrder(request)
        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        causes.ports[SLOW] = server.metrics_port
        numbers = count()

        async def update_slowly() -> None:
            async with holding(url, "SELECT FROM users WHERE id = $1 FOR UPDATE", user.id), observing(url) as observer:
                update = users_pb.UpdateUserRequest(user=User(id=user.id, full_name=f"Ada {next(numbers)}"))
                call = asyncio.ensure_future(clients.users.UpdateUser(update))
                await observer.until_waiting(1)
                await asyncio.sleep(0.3)
            await call

        causes.again(update_slowly)
        async with watch_orders(clients, now=True) as watch, _relay(causes, RELAY, url, folder):
            await watch.checkpoint()
            async with holding(url, _WRITE), driver_connection(url) as connection:
                await connection.execute(_OLD_EVENT)
                yield


@asynccontextmanager
async def _full(causes: Causes, url: str) -> AsyncIterator[None]:
    """A server on a new database, where neither gc nor a check of the ledger has run, all of whose places are taken.

    Its writes wait for a lock, with all connections that writes may have, or for a place. There is no place for further
    calls at all.
    """
    calls: list[asyncio.Future[Any]] = []
    settings: dict[str, Any] = {"admission_queue_size": 8, "admission_queue_timeout": 600, "max_concurrent_calls": 7}
    # As long as the other causes need.
    settings |= {"default_deadline": 600, "db_statement_timeout": 600}
    async with (
        running_server(url, **_SMALL, **settings) as server,
        connect(server.port) as clients,
        observing(url) as observer,
    ):
        users = [await clients.create_user() for _ in range(7)]
        async with holding(url, "SELECT FROM users FOR UPDATE"):
            # Methods have places of their own.
            update = users_pb.UpdateUserRequest(user=User(id=users.pop().id, full_name="Ada"))
            calls = [asyncio.ensure_future(clients.users.UpdateUser(update))]
            await observer.until_waiting(1)
            for user in users:
                request = users_pb.DeactivateUserRequest(id=user.id)
                calls.append(asyncio.ensure_future(clients.users.DeactivateUser(request)))
            await observer.until_waiting(3)
            causes.ports[FULL] = server.metrics_port
            causes.again(lambda: settled(*(_unknown_user(clients) for _ in range(5))))
            yield
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@asynccontextmanager
async def _failing(causes: Causes, postgres_url: str, template_url: str, folder: Path) -> AsyncIterator[None]:
    """A server with a defect, whose ledger differs, whose maintenance fails, and which some callers may not call."""
    place = folder / FAILING
    place.mkdir()
    grants = {"key:shop": EVERYTHING, "key:reader": ["users.read"]}
    async with guarded_server(postgres_url, template_url, place, grants, **_SMALL) as guarded:
        shop, reader = await guarded.clients_of("shop"), await guarded.clients_of("reader")
        user = await shop.create_user()
        await guarded.connection.execute(_BROKEN)
        await guarded.connection.execute(_LATE_MAINTENANCE)
        await guarded.connection.execute(_UNEXPLAINED_CREDIT, user.id)
        assert (await run_command("verify-ledger", "--record", database_url=guarded.database_url)).status == 1
        causes.ports[FAILING] = guarded.server.metrics_port
        causes.again(lambda: settled(*(_of_failing(guarded, shop, reader, user.id))))
        yield


def _of_failing(guarded: Guarded, shop: Clients, reader: Clients, user_id: str) -> list[Any]:
    async def unknown_caller() -> None:
        async with connect(guarded.server.port) as anonymous:
            await _unknown_user(anonymous)

    return [
        *(shop.create_order(user_id) for _ in range(3)),
        reader.create_user(),
        _unknown_user(reader),
        unknown_caller(),
    ]


@asynccontextmanager
async def _cut(causes: Causes, url: str, folder: Path) -> AsyncIterator[None]:
    """A server whose database cannot be reached, and neither can its replica.

    Its certificate expires tomorrow, and the next one cannot be used.
    """
    place = folder / CUT
    place.mkdir()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    files = write_files(place, Authority().ca.issue_cert("127.0.0.1", not_after=tomorrow))
    async with proxy_to(url) as proxy:
        settings: dict[str, Any] = {
            "tls_certificate_file": files.certificate,
            "tls_key_file": files.key,
            "tls_reload_interval": 0.2,
            "READ_DATABASE_URL": proxy.url,
        }
        async with running_server(proxy.url, **_SMALL, **settings) as server:
            replace(files.key, b"no key")
            await proxy.refuse()
            causes.ports[CUT] = server.metrics_port
            yield


@asynccontextmanager
async def _workers(causes: Causes, url: str) -> AsyncIterator[None]:
    """Two workers, one of which does nothing any more."""
    async with running_command("serve", "--port", "0", database_url=url, workers=2, **_SMALL) as parent:
        line = await parent.until_logged("serving with workers")
        causes.ports[WORKERS] = line["metrics_port"]
        stuck = line["workers"][0]
        os.kill(stuck, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(stuck, signal.SIGCONT)


@asynccontextmanager
async def _stopped(causes: Causes, url: str) -> AsyncIterator[None]:
    """A relay whose broker cannot be reached."""
    async with _running_relay(causes, STOPPED, url, free_port()):
        yield


@asynccontextmanager
async def _relay(causes: Causes, job: str, url: str, folder: Path) -> AsyncIterator[None]:
    """A relay, and a broker."""
    port = free_port()
    arguments = ("-js", "-sd", str(folder / "jetstream"), "-a", "127.0.0.1", "-p", str(port))
    async with running_program(_BROKER, *arguments) as broker:
        await broker.until_written("Server is ready")
        async with _running_relay(causes, job, url, port):

            async def has_published() -> bool:
                return (await read_page(causes.ports[job])).total("commerce_relay_published_total") > 0

            await eventually(has_published)
            yield


@asynccontextmanager
async def _running_relay(causes: Causes, job: str, url: str, broker: int) -> AsyncIterator[None]:
    settings = load(
        RelaySettings, DATABASE_URL=url, nats_url=f"nats://127.0.0.1:{broker}", relay_name=job, metrics_port=0
    )
    relay = Relay(settings)
    port = await listening_metrics_port(settings, relay.take)
    relay.measure()
    causes.ports[job] = port.port
    publishing = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing
        await port.close()
        await relay.close()


async def _unknown_user(clients: Clients) -> None:
    await clients.users.GetUser(users_pb.GetUserRequest(id=str(uuid4())))
