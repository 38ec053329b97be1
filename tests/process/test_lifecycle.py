"""Start, draining and end of `commerce serve`."""

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.db.connections.engine import async_url
from service.db.operations.migrate import head
from service.server import SERVICES, StartError
from tests.support.clients import Clients, connect, new_order
from tests.support.databases import Observer
from tests.support.failures import settled
from tests.support.locks import holding
from tests.support.processes import COMMAND, CommandResult, Process, handles_sigterm, running_command, serving
from tests.support.proxies import Forwarder, listening, proxy_to
from tests.support.servers import running_server
from tests.support.waiting import eventually

LOCK_USER = "SELECT FROM users WHERE id = $1 FOR UPDATE"
# There is no retry policy; gRPC itself only retries calls that no server has started.
CALLER = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Time to connect: longer than the default, for a busy machine.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Otherwise all channels of a process share their connections.
    ("grpc.use_local_subchannel_pool", 1),
]
# Round robin over the servers that report readiness.
WATCHING_HEALTH = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "readiness"}}


async def health_of(clients: Clients) -> dict[str, str]:
    answers = {
        name: await clients.health.Check(HealthCheckRequest(service=name)) for name in ("", "readiness", *SERVICES)
    }
    return {name: HealthCheckResponse.ServingStatus.Name(answer.status) for name, answer in answers.items()}


async def until_port_is_free(port: int) -> None:
    def refused() -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", port)) != 0

    await eventually(refused)


def assert_one_line(finished: CommandResult, *words: str) -> None:
    assert finished.status == 1, finished
    assert finished.stderr.startswith("Error: "), finished
    assert finished.stderr.count("\n") == 1, finished
    assert finished.stderr.endswith("\n"), finished
    for word in words:
        assert word in finished.stderr


async def test_a_terminated_server_finishes_calls_and_accepts_new_ones_while_it_drains(
    database_url: str, observer: Observer
) -> None:
    async with (
        serving(database_url, program=COMMAND, max_connection_age=2) as process,
        connect(await process.port()) as clients,
    ):
        user = await clients.create_user()
        assert set((await health_of(clients)).values()) == {"SERVING"}
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            running = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            process.send(signal.SIGTERM)
            await process.until_logged("draining")
            statuses = await health_of(clients)
            assert statuses.pop("") == "SERVING"
            assert set(statuses.values()) == {"NOT_SERVING"}
            assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user == user
        order = await running
        finished = await process.end()
    assert finished.status == 0
    assert finished.logged("stopped")
    assert "Traceback" not in finished.stderr
    assert await observer.count("orders", "id = $1", UUID(order.id)) == 1


async def test_a_draining_server_refuses_connections_and_serves_those_it_has(database_url: str) -> None:
    async with serving(database_url, max_connection_age=600) as process:
        port = await process.port()
        async with connect(port) as clients:
            user = await clients.create_user()
            process.send(signal.SIGTERM)
            await process.until_logged("draining")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user == user


async def test_a_server_without_clients_stops_without_draining(database_url: str) -> None:
    async with serving(database_url, max_connection_age=600, shutdown_grace=600) as process:
        process.send(signal.SIGINT)
        finished = await process.end(seconds=20)
    assert finished.status == 0
    (line,) = finished.logged("draining")
    assert (line["connections"], line["at_most_seconds"]) == (0, 1264.0)


async def test_a_draining_server_stops_when_the_last_client_disconnects(database_url: str) -> None:
    async with serving(database_url, max_connection_age=600) as process:
        async with connect(await process.port()) as clients:
            await clients.create_user()
            process.send(signal.SIGINT)
            line = await process.until_logged("draining")
            assert line["connections"] == 1
            await clients.create_user()
        assert (await process.end(seconds=20)).status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_still_starting_stops_without_serving(database_url: str, number: signal.Signals) -> None:
    async with proxy_to(database_url) as proxy:
        # It waits for PostgreSQL.
        proxy.fall_silent(new_too=True)
        arguments = ("serve", "--port", "0")
        async with running_command(*arguments, database_url=proxy.url, db_connect_timeout=600) as process:
            await eventually(lambda: handles_sigterm(process.pid))
            process.send(number)
            finished = await process.end()
    assert finished.status == 0, finished
    assert finished.logged("stopped while starting")
    assert "Traceback" not in finished.stderr


async def test_a_watcher_learns_first_that_the_server_drains(database_url: str) -> None:
    async with (
        serving(database_url, max_connection_age=1, shutdown_grace=0) as process,
        connect(await process.port()) as clients,
    ):
        watch = clients.health.Watch(HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == HealthCheckResponse.SERVING
        process.send(signal.SIGTERM)
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        assert (await process.end()).status == 0


async def test_a_call_that_outlasts_the_age_of_its_connection_ends_well(database_url: str, observer: Observer) -> None:
    async with serving(database_url, max_connection_age=0.2) as process, connect(await process.port()) as clients:
        user = await clients.create_user()
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            running = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            # The server has sent GOAWAY on this connection.
            await eventually(lambda: clients.channel.get_state() is not grpc.ChannelConnectivity.READY)
            # The call takes many times the maximum age.
            await asyncio.sleep(1)
        assert (await running).user_id == user.id


async def test_work_without_a_waiting_caller_ends_before_the_server_does(database_url: str, observer: Observer) -> None:
    # What goes on without a call has the grace period, too.
    async with serving(database_url, max_connection_age=0, shutdown_grace=60) as process:
        port = await process.port()
        async with connect(port) as clients:
            user = await clients.create_user()
            async with holding(database_url, LOCK_USER, UUID(user.id)):
                call = clients.orders.CreateOrder(pb.CreateOrderRequest(order=new_order(user.id)))
                await observer.until_waiting(1)
                call.cancel()
                process.send(signal.SIGTERM)
                await until_port_is_free(port)
                assert await observer.backends(waiting=True)
            finished = await process.end()
    assert finished.status == 0
    # It is rolled back, because its caller has gone and would not learn that it was written.
    assert await observer.count("orders") == 0


@pytest.mark.parametrize("age", [0, 600], ids=["while calls end", "while GOAWAY moves clients away"])
async def test_a_second_signal_ends_the_server_immediately(database_url: str, observer: Observer, age: int) -> None:
    async with (
        serving(database_url, max_connection_age=age, shutdown_grace=600) as process,
        connect(await process.port()) as clients,
    ):
        user = await clients.create_user()
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            running = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            process.send(signal.SIGTERM)
            await process.until_logged("draining")
            process.send(signal.SIGTERM)
            # The call may take 30 s.
            finished = await process.end(seconds=15)
            await settled(running)
    # Not 0, because it aborted a call.
    assert finished.status == 1
    assert "Traceback" not in finished.stderr


class Load:
    """Callers that call continuously, and the outcomes of their calls."""

    channels = ("one", "two", "three")

    def __init__(self, user_id: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._user_id = user_id
        self._stopping = asyncio.Event()

    async def call(self, name: str, channel: grpc.aio.Channel) -> None:
        users, orders = UserServiceStub(channel), OrderServiceStub(channel)
        # The server logs this id.
        metadata = (("x-request-id", name),)
        while not self._stopping.is_set():
            try:
                await users.GetUser(users_pb.GetUserRequest(id=self._user_id), metadata=metadata)
                await orders.CreateOrder(pb.CreateOrderRequest(order=new_order(self._user_id)), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                self.outcomes[f"{error.code().name}: {error.details()}"] += 1
            else:
                self.outcomes["OK"] += 1
            # Leaves the servers CPU time to start.
            await asyncio.sleep(0.02)

    async def until_all_call(self, process: Process) -> None:
        await eventually(lambda: {line["x_request_id"] for line in process.logged("call")} >= set(self.channels))

    @asynccontextmanager
    async def on(self, target: str, options: Sequence[tuple[str, Any]]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            callers = []
            for name in self.channels:
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
                callers += [asyncio.create_task(self.call(name, channel)) for _ in range(2)]
            try:
                yield
            finally:
                self._stopping.set()
                await asyncio.gather(*callers)


async def new_user_id(process: Process) -> str:
    async with connect(await process.port()) as clients:
        return (await clients.create_user()).id


async def test_no_call_of_callers_that_watch_health_fails_while_servers_are_replaced(database_url: str) -> None:
    async with AsyncExitStack() as servers:

        async def serve(port: int = 0) -> Process:
            return await servers.enter_async_context(serving(database_url, port, max_connection_age=1))

        first, second = await serve(), await serve()
        load = Load(await new_user_id(first))
        addresses = f"ipv4:127.0.0.1:{await first.port()},127.0.0.1:{await second.port()}"
        options = [*CALLER, ("grpc.service_config", json.dumps(WATCHING_HEALTH))]
        async with load.on(addresses, options):
            await load.until_all_call(first)
            await load.until_all_call(second)
            for old in (first, second):
                old.send(signal.SIGTERM)
                assert (await old.end()).status == 0
                await load.until_all_call(await serve(await old.port()))
    assert set(load.outcomes) == {"OK"}, load.outcomes


async def test_no_call_fails_while_a_balancer_sends_new_connections_to_another_server(database_url: str) -> None:
    first_server = serving(database_url, max_connection_age=1)
    second_server = serving(database_url, max_connection_age=1)
    async with first_server as first, second_server as second:
        ready = first

        async def connect_to_ready() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", await ready.port())

        load = Load(await new_user_id(first))
        async with listening(Forwarder(connect_to_ready)) as balancer, load.on(f"127.0.0.1:{balancer.port}", CALLER):
            await load.until_all_call(first)
            # A server that drains refuses connections, so the balancer must stop sending them before.
            ready = second
            first.send(signal.SIGTERM)
            assert (await first.end()).status == 0
            await load.until_all_call(second)
    assert set(load.outcomes) == {"OK"}, load.outcomes


@pytest.mark.parametrize(("setting", "way"), [("auto", "calls"), ("listeners", "listeners")])
async def test_the_log_says_how_calls_are_taken(database_url: str, setting: str, way: str) -> None:
    async with serving(database_url, accept_mode=setting) as process:
        assert (await process.until_logged("serving"))["accept_mode"] == way


async def test_threads_are_scheduled_as_the_setting_says(database_url: str) -> None:
    async def scheduling(setting: str) -> dict[tuple[int, int], int]:
        """Return the number of threads of a server for each scheduling class and nice value."""
        async with serving(database_url, scheduling=setting) as process:
            await process.port()
            threads = [int(task) for task in os.listdir(f"/proc/{process.pid}/task")]  # noqa: PTH208 - pathlib blocks
            return Counter((os.sched_getscheduler(one), os.getpriority(os.PRIO_PROCESS, one)) for one in threads)

    # An in-process server of another test may have changed it.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    batch, normal, adaptive = [await scheduling(setting) for setting in ("batch", "normal", "adaptive")]
    # Inherited from the parent, which other tests have changed.
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    assert normal.keys() == {(os.sched_getscheduler(0), nice)}
    # It has nothing to do. (tests/rpc/transport/test_scheduling.py makes it busy.)
    assert adaptive.keys() == {(os.SCHED_OTHER, nice)}
    # Only gRPC's poller thread has a lower priority; the others have the main thread's.
    assert batch.pop((os.SCHED_BATCH, nice + 10)) == 1
    assert batch.keys() == {(os.SCHED_BATCH, nice)}


@pytest.fixture
def taken_port() -> Iterator[int]:
    # Its owner could bind it too.
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        yield listener.getsockname()[1]


async def test_a_taken_port_is_one_line(database_url: str, taken_port: int) -> None:
    async with running_command("serve", "--port", str(taken_port), database_url=database_url) as process:
        assert_one_line(await process.end(), f"127.0.0.1:{taken_port}", "in use")


async def test_a_database_out_of_reach_is_one_line() -> None:
    url = "postgresql://ada:secret@127.0.0.1:1/shop"
    async with running_command("serve", "--port", "0", database_url=url) as process:
        finished = await process.end()
    assert_one_line(finished, "the database cannot be reached")
    assert "secret" not in finished.stderr


async def test_a_schema_that_is_behind_is_one_line_that_says_what_to_run(empty_database_url: str) -> None:
    async with running_command("serve", "--port", "0", database_url=empty_database_url) as process:
        assert_one_line(await process.end(), "revision none", f"needs {head()}", "run `commerce migrate`")


async def test_a_setting_that_is_missing_is_one_line_that_names_it() -> None:
    async with running_command("serve") as process:
        assert_one_line(await process.end(), "DATABASE_URL is not set")


async def test_a_wrong_setting_is_one_line_that_names_it_without_its_value() -> None:
    async with running_command("serve", database_url="postgresql://127.0.0.1/shop", signing_key="too-short") as process:
        finished = await process.end()
    assert_one_line(finished, "COMMERCE_SIGNING_KEY is wrong")
    assert "too-short" not in finished.stderr


@pytest.mark.parametrize(
    ("part", "words"),
    [
        pytest.param({"username": "no_user_of_this_name"}, "refuses the user or the password", id="unknown user"),
        pytest.param({"database": "no_database_of_this_name"}, "DATABASE_URL names does not exist", id="no database"),
        pytest.param({"host": None, "query": {"host": "/nowhere"}}, "cannot be reached", id="no socket"),
    ],
)
async def test_a_server_without_its_database_does_not_start(
    postgres_url: str, part: dict[str, Any], words: str
) -> None:
    url = async_url(postgres_url).set(**part).render_as_string(hide_password=False)
    with pytest.raises(StartError, match=words):
        async with running_server(url):
            pass


async def test_an_address_of_another_machine_is_one_line(database_url: str) -> None:
    allowed: Any = {"allow_plaintext": True, "allow_anonymous": True}
    arguments = ("serve", "--host", "192.0.2.1", "--port", "0")
    async with running_command(*arguments, database_url=database_url, **allowed) as process:
        finished = await process.end()
    assert finished.status == 1
    *warnings, line = finished.stderr.splitlines()
    assert len(warnings) == 2
    assert line.startswith("Error: cannot listen on 192.0.2.1:0: ")


async def test_listening_on_loopback_is_not_warned_of(database_url: str) -> None:
    async with serving(database_url) as process:
        assert '"warning"' not in process.stderr()


@asynccontextmanager
async def developing(data_dir: Path) -> AsyncIterator[tuple[Process, Clients]]:
    """Run `commerce serve --dev`, and stop it as Ctrl-C does."""
    async with running_command("serve", "--dev", "--port", "0", data_dir=data_dir) as process:
        port = await process.port()
        async with connect(port) as clients:
            yield process, clients
        # A terminal sends SIGINT to the whole process group.
        os.killpg(process.pid, signal.SIGINT)
        finished = await process.end()
    assert finished.status == 0
    assert "Traceback" not in finished.stderr
    assert f"127.0.0.1:{port}" in finished.stdout
    assert str(data_dir) in finished.stdout


async def test_a_development_server_keeps_its_data_and_takes_its_postgresql_with_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with developing(data_dir) as (process, clients):
        postgres = int((data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
        assert process.running
        user = await clients.create_user()
        order = await clients.create_order(user.id)
    assert not (data_dir / "pgdata" / "postmaster.pid").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(postgres, 0)
    async with developing(data_dir) as (_, clients):
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))).user == user
        assert (await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order == order


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_second_development_server_says_whose_database_it_uses_and_ends_with_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    data_dir = tmp_path / "data"
    arguments = ("serve", "--dev", "--port", "0")
    async with running_command(*arguments, data_dir=data_dir) as first:
        await first.port()
        async with running_command(*arguments, data_dir=data_dir) as second:
            async with connect(await second.port()) as clients:
                await clients.create_user()
            line = await second.until_logged("using the database of another process, and stopping when it does")
            assert line["pid"] == first.pid
            first.send(number)
            finished = await second.end()
        assert finished.status == 0
        assert finished.logged("stopping, because the process that runs the database has stopped")
        assert "Traceback" not in finished.stderr
        await first.end()


async def test_a_development_server_without_postgresql_is_one_line(tmp_path: Path) -> None:
    async with running_command("serve", "--dev", data_dir=tmp_path / "data", postgres_bin=tmp_path) as process:
        assert_one_line(await process.end(), "no PostgreSQL server", str(tmp_path))
