"""`commerce debug` asks real servers what they do, while real calls wait."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_import_pb2 import UserImportConfig
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.clients import Clients, connect, new_user
from tests.support.databases import cloned, driver_connection, observing
from tests.support.debug_sockets import ask_process
from tests.support.large_rows import insert_users
from tests.support.locks import holding
from tests.support.passwords import PASSWORD
from tests.support.processes import CommandResult, Process, run_command, running_command
from tests.support.waiting import eventually
from tests.support.watching import watch_orders

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LOCK_ORDER = "SELECT FROM orders WHERE id = $1::text::uuid FOR UPDATE"
LOCK_ORDERS = "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"


@dataclass(frozen=True)
class Service:
    """Two workers, their address and database, and a client on a connection to one of them."""

    process: Process
    address: str
    database_url: str
    clients: Clients

    @property
    def workers(self) -> list[int]:
        """Their process ids."""
        workers: list[int] = self.process.logged("serving with workers")[0]["workers"]
        return workers

    async def answers(self, **question: Any) -> list[dict[str, Any]]:
        """Return the answers of both workers."""
        return [await ask_process(worker, question) for worker in self.workers]

    async def all(self, what: str, **question: Any) -> list[dict[str, Any]]:
        """Return what the lists with this name in the answers of both workers contain."""
        return [each for answer in await self.answers(**question) for each in answer[what]]

    async def call(self, x_request_id: str, **wanted: Any) -> dict[str, Any]:
        """Wait until a call with this id is shown like this, and return what is shown of it."""

        async def shown() -> dict[str, Any] | None:
            calls = [call for call in await self.all("calls", ask="calls", stacks=True) if has(call, wanted)]
            return next((call for call in calls if call["x_request_id"] == x_request_id), None)

        found: dict[str, Any] = await eventually(shown)
        return found


def has(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(found[key] == value for key, value in wanted.items())


@pytest.fixture(scope="module")
async def service(postgres_url: str, template_url: str) -> AsyncIterator[Service]:
    settings: dict[str, Any] = {"workers": 2, "db_pool_size": 4, "max_connection_age": 0, "shutdown_grace": 1}
    async with (
        cloned(postgres_url, template_url) as url,
        running_command("serve", "--port", "0", database_url=url, **settings) as process,
    ):
        port = (await process.until_logged("serving with workers"))["port"]
        async with connect(port, own_connection=True) as clients:
            yield Service(process, f"127.0.0.1:{port}", url, clients)


@asynccontextmanager
async def unfinished(call: Any) -> AsyncIterator[None]:
    """Cancel a call when the block ends."""
    try:
        yield
    finally:
        call.cancel()
        await call.code()


def metadata(x_request_id: str) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", x_request_id), ("traceparent", f"00-{TRACE}-00f067ca0be902c7-01"))


def update(clients: Clients, order: Order, x_request_id: str) -> Any:
    changed = Order(id=order.id, external_ref=f"cart-{uuid4().hex}")
    request = orders_pb.UpdateOrderRequest(order=changed, update_mask=FieldMask(paths=["external_ref"]))
    return clients.orders.UpdateOrder(request, metadata=metadata(x_request_id), timeout=60)


async def debug(*arguments: str) -> CommandResult:
    """Run `commerce debug`, which needs no settings."""
    return await run_command("debug", *arguments)


async def test_a_call_that_waits_for_a_lock_is_shown_with_its_statement_connection_and_blocker(
    service: Service,
) -> None:
    user = await service.clients.create_user()
    order = await service.clients.create_order(user.id)
    async with (
        holding(service.database_url, LOCK_ORDER, order.id) as holder,
        unfinished(update(service.clients, order, "held-up")),
        observing(service.database_url) as observer,
    ):
        (backend,) = await observer.until_waiting(1)
        call = await service.call("held-up", connection=backend)
        assert call["method"] == "commerce.orders.v1.OrderService/UpdateOrder"
        assert (call["state"], call["statement"]) == ("in statement", "select_orders")
        assert (call["caller"], call["trace_id"], call["client_has_gone"]) == ("anonymous", TRACE, False)
        assert 0 < call["age_seconds"] < 60
        assert 0 < call["seconds_left"] <= 30
        assert any("service.application.orders:update_order:" in function for function in call["stack"])

        (used,) = [each for each in await service.all("connections", ask="pool") if each["connection"] == backend]
        assert (used["pool"], used["in_transaction"], used["statement"]) == ("calls", True, "select_orders")
        assert used["seconds"] > 0
        assert [each["x_request_id"] for each in used["calls"]] == ["held-up"]
        pools = await service.all("pools", ask="pool")
        assert sum(each["in_use"] for each in pools if each["pool"] == "transactions") == 1

        assert [answer["problems"] for answer in await service.answers(ask="statements")] == [{}, {}]
        sessions = {each["connection"]: each for each in await service.all("sessions", ask="statements")}
        blocked, blocking = sessions[backend], sessions[holder.get_server_pid()]
        assert (blocked["statement"], blocked["state"], blocked["is_ours"]) == ("select_orders", "active", True)
        assert blocked["waits_for"].startswith("Lock: ")
        assert blocked["blocked_by"] == [holder.get_server_pid()]
        assert [each["x_request_id"] for each in blocked["calls"]] == ["held-up"]
        assert (blocking["is_ours"], blocking["state"]) == (False, "idle in transaction")
        assert blocking["transaction_seconds"] > 0

        for command, shown in (
            ("calls", f"UpdateOrder +in statement select_orders +{backend} +anonymous +held-up +{TRACE}"),
            ("pool", f"{backend} +calls .*select_orders, in a transaction +OrderService/UpdateOrder of anonymous"),
            ("statements", f"{backend} +select_orders +active .*Lock: .*{holder.get_server_pid()} .*held-up"),
        ):
            texts = [(await debug(command, "--pid", str(worker))).stdout for worker in service.workers]
            assert [text.partition(",")[0] for text in texts] == ["worker 1", "worker 2"]
            assert any(re.search(shown, text) for text in texts), texts


async def test_the_command_asks_both_workers(service: Service) -> None:
    finished = await debug("calls", "--json")
    assert finished.status == 0, finished
    # Other servers of this machine may answer, too.
    found = [answer["process"] for answer in json.loads(finished.stdout)]
    ours = [process for process in found if process["pid"] in service.workers]
    assert [process["worker"] for process in ours] == [1, 2]
    assert {process["port"] for process in ours} == {service.process.logged("serving with workers")[0]["port"]}
    assert {process["draining"] for process in ours} == {False}
    loops = [answer["event_loop"] for answer in await service.answers(ask="calls")]
    assert [loop["answers"] for loop in loops] == [True, True]
    longer = await debug("statements", "--longer-than", "3600", "--pid", str(service.workers[1]), "--json")
    assert [answer["sessions"] for answer in json.loads(longer.stdout)] == [[]]


async def test_calls_that_share_a_statement_are_shown_as_users_of_its_connection(service: Service) -> None:
    user = await service.clients.create_user()
    order = await service.clients.create_order(user.id)
    request = orders_pb.GetOrderRequest(id=order.id)
    async with AsyncExitStack() as stack:
        first, second, observer = [
            await stack.enter_async_context(driver_connection(service.database_url)) for _ in range(3)
        ]
        until_free, until_end = first.transaction(), second.transaction()
        await until_free.start()
        await first.execute(LOCK_ORDERS)
        # Two batches run, and the next calls wait until one of them has ended.
        for number in range(5):
            call = service.clients.orders.GetOrder(request, metadata=metadata(f"shared-{number}"), timeout=60)
            await stack.enter_async_context(unfinished(call))
            words = "in statement" if number < 2 else "waiting for a batch to begin"
            await service.call(f"shared-{number}", state=words)
        alone = await service.call("shared-0")
        assert (alone["statement"], alone["shared_by"]) == ("orders_by_ids", 1)
        # The two go on, and those that waited wait for the next lock, which has waited for longer.
        await until_end.start()
        locking = asyncio.create_task(second.execute(LOCK_ORDERS))
        waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"
        await eventually(lambda: observer.fetchval(waits, second.get_server_pid()))
        await until_free.rollback()
        await locking
        together = [await service.call(f"shared-{number}", shared_by=3) for number in (2, 3, 4)]
        (connection,) = {call["connection"] for call in together}
        used = await service.all("connections", ask="pool")
        (users,) = [each["calls"] for each in used if each["connection"] == connection]
        assert {call["x_request_id"] for call in users} == {"shared-2", "shared-3", "shared-4"}
        await until_end.rollback()


async def test_a_call_that_waits_for_a_connection_is_shown_with_the_pool(service: Service) -> None:
    user = await service.clients.create_user()
    orders = [await service.clients.create_order(user.id) for _ in range(4)]
    lock = "SELECT FROM orders WHERE user_id = $1::text::uuid FOR UPDATE"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(holding(service.database_url, lock, user.id))
        # Three transactions have the connections that transactions may use.
        for number, order in enumerate(orders):
            await stack.enter_async_context(unfinished(update(service.clients, order, f"queued-{number}")))
            await service.call(f"queued-{number}", state="in statement" if number < 3 else WAITS_FOR_TRANSACTIONS)
        pools = await service.all("pools", ask="pool")
        assert sum(each["waiting"] for each in pools if each["pool"] == "transactions") == 1


WAITS_FOR_TRANSACTIONS = "waiting for a connection of transactions"


async def test_a_write_whose_client_has_gone_is_shown_as_long_as_it_uses_a_connection(service: Service) -> None:
    user = await service.clients.create_user()
    order = await service.clients.create_order(user.id)
    async with holding(service.database_url, LOCK_ORDER, order.id):
        async with unfinished(update(service.clients, order, "gone")):
            await service.call("gone", state="in statement")
        call = await service.call("gone", client_has_gone=True)
        assert (call["method"], call["state"]) == ("commerce.orders.v1.OrderService/UpdateOrder", "in statement")
        used = await service.all("connections", ask="pool")
        assert "gone" in {call["x_request_id"] for each in used for call in each["calls"]}


async def test_streams_are_shown_with_what_they_wait_for(service: Service) -> None:
    await insert_users(service.database_url, 1000)
    # It takes 64 KiB that nothing has read, and no more.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(service.address, options=options) as channel:
        users: Any = UserServiceStub(channel)
        exporting = users.ExportUsers(users_pb.ExportUsersRequest(), metadata=metadata("export"))
        importing = users.ImportUsers(metadata=metadata("import"))
        async with watch_orders(service.clients, now=True) as watch, unfinished(exporting), unfinished(importing):
            await watch.checkpoint()
            await importing.write(users_pb.ImportUsersRequest(config=UserImportConfig()))
            await service.call("import", state="streaming: waiting for its client to send")
            export = await service.call("export", state="streaming: waiting for its client to read")
            calls = await service.all("calls", ask="calls")
            states = {call["method"].rpartition("/")[2]: call["state"] for call in calls}
            assert states["WatchOrders"] == "streaming: waiting for events"
            (used,) = [each for each in await service.all("connections", ask="pool") if each["pool"] == "exports"]
            assert used["connection"] == export["connection"]
            assert [call["x_request_id"] for call in used["calls"]] == ["export"]
            assert used["seconds"] > 0


async def test_nothing_that_callers_send_is_shown(service: Service) -> None:
    email = f"{uuid4().hex}@example.com"
    request = users_pb.CreateUserRequest(user=new_user(email=email), password=PASSWORD)
    lock = "LOCK TABLE users IN EXCLUSIVE MODE"
    call = partial(service.clients.users.CreateUser, request, metadata=metadata("secret"), timeout=60)
    async with holding(service.database_url, lock), unfinished(call()):
        await service.call("secret", state="in statement")
        for question in ("calls", "pool", "statements", "channels"):
            shown = json.dumps(await service.answers(ask=question, stacks=True))
            assert not [secret for secret in (email, PASSWORD, "INSERT", "FROM users", "$1") if secret in shown]


async def test_channelz_shows_the_connections_of_clients(service: Service) -> None:
    await service.clients.users.ListUsers(users_pb.ListUsersRequest(page_size=1))
    servers = await service.all("servers", ask="channels")
    connections = [each for server in servers for each in server["connections"]]
    connection = max(connections, key=lambda each: int(each["streams_started"]))
    assert connection["remote"].startswith("127.0.0.1:")
    assert connection["security"] == ""
    assert int(connection["streams_started"]) > 0
    assert int(connection["messages_sent"]) > 0
    assert sum(int(server["calls"].get("calls_started", 0)) for server in servers) > 0
    texts = [(await debug("channels", "--pid", str(worker))).stdout for worker in service.workers]
    assert any(re.search(r"CLIENT +SECURITY +CALLS.*\n127\.0\.0\.1:\d+ +none +\d+", text) for text in texts), texts


async def test_the_profile_of_a_busy_server_names_its_functions(service: Service, tmp_path: Path) -> None:
    function = "service.rpc.interceptors.access_log:AccessLogInterceptor.wrap.log_call"
    file = tmp_path / "stacks"
    stop = asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            await service.clients.users.ListUsers(users_pb.ListUsersRequest(page_size=50))

    async def profiled() -> CommandResult | None:
        finished = await debug("profile", "--seconds", "0.5", "--collapsed", str(file))
        assert finished.status == 0, finished
        # On a machine that is busy with other things, there are few looks.
        return finished if function in file.read_text() else None

    async with asyncio.TaskGroup() as calling:
        for _ in range(4):
            calling.create_task(call())
        finished = await eventually(profiled)
        stop.set()
    assert re.search(r"%  +\w[\w.]*:\S+$", finished.stdout, re.MULTILINE), finished
    assert "MainThread" in finished.stdout
    stacks = [line.rpartition(" ") for line in file.read_text().splitlines()]
    assert any(stack.startswith(("worker_1;", "worker_2;")) and function in stack for stack, _, _ in stacks)
    assert all(int(microseconds) >= 0 for _, _, microseconds in stacks)


async def test_a_process_is_profiled_once_at_a_time_and_only_while_its_client_waits(service: Service) -> None:
    worker = service.workers[0]

    async def profiled() -> str:
        error: str = (await ask_process(worker, {"ask": "profile", "seconds": 0.1})).get("error", "")
        return error

    async with running_command("debug", "profile", "--seconds", "60", "--pid", str(worker)) as process:
        await eventually(lambda: process.pid in {line["pid"] for line in service.process.logged("debug question")})
        assert await profiled() == "it is being profiled already: ask again later"
        process.kill()

    async def is_free() -> bool:
        return not await profiled()

    await eventually(is_free)


async def test_without_a_server_the_reason_is_one_line() -> None:
    finished = await debug("calls", "--pid", "1")
    assert (finished.status, finished.stdout) == (1, "")
    assert finished.stderr == (
        "Error: no server with process id 1 runs on this machine, or in this container, or COMMERCE_DEBUG_SOCKET is off"
        " there\n"
    )
