"""The service needs no writable file system and no capability, as the Dockerfile and docs/operations.md promise."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest

from tests.support import sandbox
from tests.support.clients import connect
from tests.support.passwords import PASSWORD
from tests.support.processes import COMMAND, CommandResult, Process, running_program

IN_SANDBOX = (sys.executable, "-m", "tests.support.sandbox")
pytestmark = pytest.mark.skipif(not sandbox.is_possible(), reason="this kernel has no Landlock to deny writing with")


@asynccontextmanager
async def confined(*command: str, **environment: str) -> AsyncIterator[Process]:
    """Run a program that can write nowhere; its home and current directory exist."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    async with running_program(*IN_SANDBOX, *command, environment={**inherited, **environment}) as process:
        yield process


async def run_confined(*command: str, **environment: str) -> CommandResult:
    async with confined(*command, **environment) as process:
        return await process.end()


def capabilities(pid: int) -> set[str]:
    """Return the sets of capabilities of a process, in hexadecimal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {value for name, _, value in (line.partition(":\t") for line in lines) if name.startswith("Cap")}


async def test_a_server_that_can_write_nowhere_serves_and_drains(database_url: str) -> None:
    async with confined(*COMMAND, "serve", "--port", "0", DATABASE_URL=database_url) as server:
        async with connect(await server.port()) as clients:
            if os.geteuid() == 0:
                assert capabilities(server.pid) == {"0" * 16}
            user = await clients.create_user()
            order = await clients.create_order(user.id)
            await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
            request = users_pb.VerifyPasswordRequest(email=user.email, password=PASSWORD)
            assert (await clients.users.VerifyPassword(request)).user == user
            [exported] = [batch async for batch in clients.users.ExportUsers(users_pb.ExportUsersRequest())]
            assert list(exported.users) == [user]
            asked = await run_confined(*COMMAND, "debug", "pool", "--pid", str(server.pid))
            assert (asked.status, asked.stderr) == (0, "")
            assert f"process {server.pid}, port" in asked.stdout
        ended = await server.terminate()
    assert ended.status == 0
    assert [line for line in ended.stderr.splitlines() if '"level":"info"' not in line] == []


async def test_workers_that_can_write_nowhere_serve_and_drain(database_url: str) -> None:
    arguments = ("serve", "--port", "0", "--workers", "2")
    async with confined(*COMMAND, *arguments, DATABASE_URL=database_url) as server:
        async with connect(await server.port()) as clients:
            await clients.create_user()
        ended = await server.terminate()
    assert ended.status == 0
    assert [line for line in ended.stderr.splitlines() if '"level":"info"' not in line] == []


@pytest.mark.parametrize("arguments", [["migrate"], ["migrate", "--check"], ["gc"], ["verify-ledger"], ["version"]])
async def test_the_commands_for_operators_write_no_file(database_url: str, arguments: Sequence[str]) -> None:
    finished = await run_confined(*COMMAND, *arguments, DATABASE_URL=database_url)
    assert (finished.status, finished.stderr) == (0, "")


@pytest.mark.parametrize("path", ["/tmp/written", "written", str(Path.home() / "written"), "/dev/shm/written"])  # noqa: S108 - it cannot be written
async def test_what_does_write_is_noticed_here(path: str) -> None:
    code = f"open({path!r}, 'w')"
    finished = await run_confined(sys.executable, "-c", code)
    assert finished.status == 1
    assert f"PermissionError: [Errno 13] Permission denied: {path!r}" in finished.stderr


async def test_a_directory_can_be_made_writable(tmp_path: Path) -> None:
    writable = {sandbox.WRITABLE: str(tmp_path)}
    finished = await run_confined(sys.executable, "-c", f"open('{tmp_path}/written', 'w').write('x')", **writable)
    assert (finished.status, (tmp_path / "written").read_text()) == (0, "x")
