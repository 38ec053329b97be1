"""`commerce serve --workers`: one process that keeps several others running on one port."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.http.conftest import NO_TLS
from tests.support.certificates import Authority, tls_channel, write_files
from tests.support.clients import connect
from tests.support.databases import Observer
from tests.support.locks import holding
from tests.support.paths import ROOT
from tests.support.processes import (
    PATIENCE_SECONDS,
    Process,
    children,
    handles_sigterm,
    running_command,
    running_program,
    serving,
)
from tests.support.proxies import proxy_to
from tests.support.waiting import eventually

LOCK_USER = "SELECT FROM users WHERE id = $1 FOR UPDATE"
ENDED, REPLACED, NOT_STARTED = "worker ended", "worker replaced", "worker not started"


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def serving_workers(database_url: str, count: int = 2, **settings: Any) -> AsyncIterator[Process]:
    """Run workers; all of them serve when the block begins, and none is left when it ends."""
    async with serving(database_url, workers=count, **({"max_connection_age": 0} | settings)) as parent:
        await parent.until_logged("serving with workers")
        pids = children(parent.pid)
        assert len(pids) == count
        try:
            yield parent
        finally:
            for pid in {*pids, *(children(parent.pid) if parent.running else [])}:
                with suppress(ProcessLookupError):
                    kill(pid)


async def until_logged_often(process: Process, event: str, times: int) -> list[dict[str, object]]:
    await eventually(lambda: len(process.logged(event)) >= times or not process.running, PATIENCE_SECONDS)
    lines = process.logged(event)
    assert len(lines) >= times, process.stderr()
    return lines


async def test_workers_serve_on_one_free_port_and_end_together(database_url: str) -> None:
    async with serving_workers(database_url, 3) as parent:
        (line,) = parent.logged("serving with workers")
        pids = children(parent.pid)
        assert line["workers"] == pids
        assert {served["port"] for served in parent.logged("serving")} == {line["port"]}
        assert sorted(served["worker"] for served in parent.logged("serving")) == [1, 2, 3]
        async with connect(await parent.port()) as clients:
            await clients.create_user()
            answer = await clients.health.Check(HealthCheckRequest(service="readiness"))
            assert answer.status == HealthCheckResponse.SERVING
        finished = await parent.terminate()
    assert finished.status == 0, finished
    assert not any(map(is_alive, pids))
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    # All lines of a worker have its number, and the parent's have none.
    assert [line.get("worker") for line in lines if line["event"] == "stopped"].count(None) == 1
    assert sorted(line["worker"] for line in lines if line["event"] == "draining") == [1, 2, 3]
    assert {line["worker"] for line in lines if line["event"] == "call"} <= {1, 2, 3}
    assert "Traceback" not in finished.stderr


async def test_one_worker_is_this_process(database_url: str) -> None:
    async with serving(database_url, workers=1) as process:
        assert not children(process.pid)
        assert "worker" not in process.stderr()


async def test_a_worker_that_died_is_replaced_while_the_other_serves(database_url: str) -> None:
    async with serving_workers(database_url) as parent:
        first, second = children(parent.pid)
        kill(first)
        line = await parent.until_logged(ENDED)
        assert (line["reason"], line["pid"], line["worker"]) == ("it was ended by SIGKILL", first, 1)
        line = await parent.until_logged(REPLACED)
        assert (line["worker"], [line["pid"]]) == (1, [pid for pid in children(parent.pid) if pid != second])
        async with connect(await parent.port()) as clients:
            await clients.create_user()
        assert is_alive(second)
        assert (await parent.terminate()).status == 0


async def test_a_worker_that_was_asked_to_stop_finishes_its_calls_and_is_replaced(database_url: str) -> None:
    async with serving_workers(database_url) as parent:
        os.kill(children(parent.pid)[1], signal.SIGTERM)
        assert (await parent.until_logged("draining"))["worker"] == 2
        line = await parent.until_logged(REPLACED)
        assert line["worker"] == 2
        assert parent.logged(ENDED)[0]["reason"] == "it ended with status 0"


async def test_a_crash_loop_ends_the_parent_with_its_reason(database_url: str) -> None:
    async with serving_workers(database_url) as parent:
        other = children(parent.pid)[1]
        kill(children(parent.pid)[0])
        for ends in range(1, 5):
            line = (await until_logged_often(parent, REPLACED, ends))[-1]
            kill(int(str(line["pid"])))
        finished = await parent.end(PATIENCE_SECONDS)
        assert not is_alive(other)
    assert finished.status == 1
    assert "Error: worker 1 ended 5 times in a row" in finished.stderr
    assert "it was ended by SIGKILL" in finished.stderr
    # The others have calls to finish.
    assert [line["worker"] for line in finished.logged("draining")] == [2]


async def test_workers_that_cannot_start_end_the_parent_with_one_line() -> None:
    url = "postgresql://ada:secret@127.0.0.1:1/shop"
    async with running_command("serve", "--port", "0", "--workers", "3", database_url=url) as parent:
        finished = await parent.end(PATIENCE_SECONDS)
    assert finished.status == 1
    assert finished.stderr.startswith("Error: the database cannot be reached at 127.0.0.1:1")
    assert finished.stderr.count("\n") == 1
    assert "secret" not in finished.stderr


async def test_a_worker_is_replaced_as_soon_as_the_database_is_back(database_url: str) -> None:
    async with proxy_to(database_url) as proxy, serving_workers(proxy.url) as parent:
        await proxy.refuse()
        kill(children(parent.pid)[0])
        # More often than a crash loop has crashes.
        lines = await until_logged_often(parent, NOT_STARTED, 6)
        assert "cannot be reached" in str(lines[0]["reason"])
        assert parent.running
        await proxy.listen()
        await parent.until_logged(REPLACED)


async def test_sighup_replaces_the_workers_one_by_one(database_url: str) -> None:
    async with serving_workers(database_url) as parent:
        before = children(parent.pid)
        parent.send(signal.SIGHUP)
        await parent.until_logged("rolled the workers")
        assert not set(before) & set(children(parent.pid))
        assert len(children(parent.pid)) == 2
        lines = [json.loads(line) for line in parent.stderr().splitlines()]
        order = [
            (line["event"], line["worker"]) for line in lines if line["event"] in {"serving", "draining", "stopped"}
        ]
        assert sorted(order[:2]) == [("serving", 1), ("serving", 2)]
        # The new worker serves before the old one drains.
        rolled = [(event, worker) for worker in (1, 2) for event in ("serving", "draining", "stopped")]
        assert order[2:] == rolled
        assert parent.logged(ENDED) == []


async def test_a_running_call_ends_well_while_its_worker_is_rolled(database_url: str, observer: Observer) -> None:
    async with (
        serving_workers(database_url, shutdown_grace=60) as parent,
        connect(await parent.port(), own_connection=True) as clients,
    ):
        user = await clients.create_user()
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            call = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            parent.send(signal.SIGHUP)
            # One of the workers is rolled before the call ends, and the other waits for it or has been rolled before.
            await until_logged_often(parent, "draining", 1)
            await asyncio.sleep(0.5)
        assert (await call).user_id == user.id
        await parent.until_logged("rolled the workers")


async def test_sigterm_lets_all_workers_finish_their_calls_together(database_url: str, observer: Observer) -> None:
    async with serving_workers(database_url, shutdown_grace=60) as parent:
        pids = children(parent.pid)
        async with connect(await parent.port(), own_connection=True) as clients:
            user = await clients.create_user()
            async with holding(database_url, LOCK_USER, UUID(user.id)):
                call = asyncio.ensure_future(clients.create_order(user.id))
                await observer.until_waiting(1)
                # As service managers do, to all processes of the service; the workers then get another one.
                for pid in (*pids, parent.pid):
                    os.kill(pid, signal.SIGTERM)
                await until_logged_often(parent, "draining", 2)
                await parent.until_logged("draining the workers")
                assert parent.running
            assert (await call).user_id == user.id
        finished = await parent.end(PATIENCE_SECONDS)
    assert finished.status == 0, finished
    assert not any(map(is_alive, pids))


async def test_a_second_signal_stops_all_immediately(database_url: str, observer: Observer) -> None:
    async with (
        serving_workers(database_url, shutdown_grace=600) as parent,
        connect(await parent.port(), own_connection=True) as clients,
    ):
        pids = children(parent.pid)
        user = await clients.create_user()
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            call = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            parent.send(signal.SIGTERM)
            await parent.until_logged("draining the workers")
            parent.send(signal.SIGINT)
            finished = await parent.end(20)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
    assert finished.status == 1
    assert finished.logged("second signal: stopping immediately")
    assert not any(map(is_alive, pids))


async def test_workers_drain_and_end_when_their_parent_is_killed(database_url: str, observer: Observer) -> None:
    async with (
        serving_workers(database_url, shutdown_grace=60) as parent,
        connect(await parent.port(), own_connection=True) as clients,
    ):
        pids = children(parent.pid)
        user = await clients.create_user()
        async with holding(database_url, LOCK_USER, UUID(user.id)):
            call = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            parent.kill()
            await until_logged_often_after_end(parent, "draining", 2)
        assert (await call).user_id == user.id
        await eventually(lambda: not any(map(is_alive, pids)))


async def until_logged_often_after_end(process: Process, event: str, times: int) -> None:
    await eventually(lambda: len(process.logged(event)) >= times)


async def test_a_worker_that_is_killed_while_it_is_stopped_by_a_debugger_is_not_waited_for(database_url: str) -> None:
    async with serving_workers(database_url, shutdown_grace=0) as parent:
        pids = children(parent.pid)
        os.kill(pids[0], signal.SIGSTOP)
        started = time.monotonic()
        finished = await parent.terminate()
    assert finished.status == 1
    # The budget of a worker without grace is 4 s, and its parent waits a second longer.
    assert time.monotonic() - started < 15
    assert finished.logged("ending workers, because they did not end in time")[0]["workers"] == [1]
    assert not any(map(is_alive, pids))


async def test_a_worker_that_does_not_drain_does_not_stop_a_roll(database_url: str) -> None:
    async with serving_workers(database_url, shutdown_grace=0) as parent:
        before = children(parent.pid)
        os.kill(before[0], signal.SIGSTOP)
        parent.send(signal.SIGHUP)
        await parent.until_logged("rolled the workers")
        assert parent.logged("ending workers, because they did not end in time")[0]["workers"] == [1]
        assert not set(before) & set(children(parent.pid))


async def test_development_with_workers_takes_its_postgresql_with_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with running_command("serve", "--dev", "--port", "0", workers=2, data_dir=data_dir) as parent:
        ports = await parent.until_logged("serving with workers")
        port = ports["port"]
        async with connect(port) as clients, httpx.AsyncClient(verify=NO_TLS) as http:
            await clients.create_user()
            # What development adds reaches the workers.
            console = await http.get(f"http://127.0.0.1:{ports['http_port']}/console/")
            assert console.status_code == 200
        # A terminal sends SIGINT to the whole process group.
        os.killpg(parent.pid, signal.SIGINT)
        finished = await parent.end(PATIENCE_SECONDS)
    assert finished.status == 0, finished
    assert f"127.0.0.1:{port}" in finished.stdout
    assert not (data_dir / "pgdata" / "postmaster.pid").exists()


async def test_workers_share_both_ports_of_tls(database_url: str, tmp_path: Path) -> None:
    authority = Authority()
    files = write_files(tmp_path, authority.server(), authority.pem)
    settings: Any = {
        "tls_certificate_file": files.certificate,
        "tls_key_file": files.key,
        "tls_client_ca_file": files.client_ca,
        "tls_port_without_client_certificates": 0,
    }
    async with serving_workers(database_url, **settings) as parent:
        (line,) = parent.logged("serving with workers")
        lines = parent.logged("serving")
        for name in ("port", "tls_port_without_client_certificates"):
            assert line[name]
        assert {served["port"] for served in lines} == {line["port"]}
        second = line["tls_port_without_client_certificates"]
        assert {served["port_without_client_certificates"] for served in lines} == {second}
        for port, certificate in ((line["port"], authority.client()), (second, None)):
            async with tls_channel(port, authority.pem, certificate) as channel:
                # The library's stub has no types.
                health: Any = HealthStub(channel)
                await health.Check(HealthCheckRequest())


async def test_workers_cannot_share_a_unix_socket(database_url: str, tmp_path: Path) -> None:
    settings: Any = {"workers": 2, "unix_socket": tmp_path / "socket"}
    async with running_command("serve", database_url=database_url, **settings) as parent:
        finished = await parent.end(PATIENCE_SECONDS)
    assert finished.status == 1
    assert finished.stderr.startswith("Error: connections to COMMERCE_UNIX_SOCKET cannot be distributed")


async def test_two_services_do_not_share_a_port_by_mistake(database_url: str) -> None:
    async with serving_workers(database_url) as parent:
        port = await parent.port()
        for workers in (1, 2):
            arguments = ("serve", "--port", str(port), "--workers", str(workers))
            async with running_command(*arguments, database_url=database_url) as other:
                finished = await other.end(PATIENCE_SECONDS)
            assert finished.status == 1
            assert f"Error: cannot listen on 127.0.0.1:{port}" in finished.stderr
        async with connect(port) as clients:
            await clients.users.ListUsers(users_pb.ListUsersRequest())


STUCK = """
import os, socket, sys, time
from service.runtime.exit_deadline import ExitDeadline
from service.runtime.worker_channel import ParentChannel
import signal
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM", flush=True))
channel = ParentChannel(int(sys.argv[1]))
assert channel.task() == {}
channel.report_ready()
channel.stop_with_parent(lambda: ExitDeadline(0.5, lambda: print("cut", flush=True)))
while True: pass
"""


def test_a_worker_that_is_stuck_ends_with_its_parent() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK, str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
    with ours:
        ours.sendall(b"{}\n")
        assert json.loads(ours.recv(1000)) == {"problem": None}
    try:
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, output) == (1, "SIGTERM\ncut\n")


def can_make_pid_namespaces() -> bool:
    return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0


CONTAINED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-m", "service")
in_container = pytest.mark.skipif(
    not can_make_pid_namespaces(), reason="this user may not create a PID namespace, in which a program is process 1"
)


@asynccontextmanager
async def contained(database_url: str, *arguments: str) -> AsyncIterator[tuple[Process, int]]:
    """Run a command as process 1 of a PID namespace; yields its process id outside, too."""
    environment = {**os.environ, "DATABASE_URL": database_url, "COMMERCE_MAX_CONNECTION_AGE": "0"}
    async with running_program(*CONTAINED, *arguments, environment=environment) as process:
        yield process, (await eventually(lambda: children(process.pid)))[0]


@in_container
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["serve", "--port", "0", "--workers", "2"], ["gc"]])
async def test_process_1_of_a_container_can_be_stopped_while_it_loads(database_url: str, command: list[str]) -> None:
    async with contained(database_url, *command) as (process, pid):
        await eventually(lambda: handles_sigterm(pid))
        os.kill(pid, signal.SIGTERM)
        # unshare exits with the status of its child.
        finished = await process.end(PATIENCE_SECONDS)
    assert finished.status in {0, 128 + signal.SIGTERM}
    assert not finished.logged("serving")


@in_container
async def test_process_1_of_a_container_reaps_orphans(database_url: str) -> None:
    async with contained(database_url, "serve", "--port", "0", "--workers", "2") as (process, pid):
        await process.until_logged("serving with workers")
        workers = children(pid)
        # As with `kubectl exec`: the shell ends, and what it has started goes to process 1.
        subprocess.run(["nsenter", "--target", str(pid), "--pid", "--mount", "sh", "-c", "sleep 1 &"], check=True)  # noqa: ASYNC221 - ends immediately
        await eventually(lambda: len(children(pid)) == 3)
        await eventually(lambda: children(pid) == workers)
        os.kill(pid, signal.SIGTERM)
        finished = await process.end(PATIENCE_SECONDS)
    assert finished.status == 0, finished
