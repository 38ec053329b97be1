"""A server ends within its budget, busy or stuck, and leaves nothing half-written."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import commerce.users.v1.user_service_pb2 as pb
import pytest
from argon2 import PasswordHasher
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow

from tests.support.clients import Clients, connect
from tests.support.databases import Observer
from tests.support.failures import settled
from tests.support.locks import COMMIT_WAITS, HOLD_COMMITS, holding
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT
from tests.support.processes import CommandResult, Process, serving
from tests.support.proxies import proxy_to
from tests.support.waiting import eventually

CUT_CALLS = "cancelling calls that did not end in time"
ROLLED_BACK = "rolled back work that did not end in time"
FORCED = "ending the process, because it did not end in time"
IMPORT_USERS = "/commerce.users.v1.UserService/ImportUsers"
SIGN_IN = "/commerce.users.v1.UserService/VerifyPassword"
CREATE_ORDER = "/commerce.orders.v1.OrderService/CreateOrder"
# A server with clients has one second to drain.
QUICK = {"max_connection_age": 0, "shutdown_grace": 1}


@dataclass(frozen=True)
class End:
    """How a server ended after SIGTERM."""

    result: CommandResult
    seconds: float

    def assert_within_budget(self) -> None:
        """By itself: the server is not ended by force."""
        self._assert_in_time()
        assert self.result.status == 0, self.result
        assert self.result.logged("stopped")

    def assert_forced(self) -> None:
        """By force, because something could not be ended."""
        self._assert_in_time()
        assert self.result.status == 1, self.result
        assert self.result.logged(FORCED)

    def _assert_in_time(self) -> None:
        (draining,) = self.result.logged("draining")
        # A server that hangs is ended by force at the end of the budget; the test looks a moment later.
        assert self.seconds < draining["at_most_seconds"] + 2, self.result
        assert "Traceback" not in self.result.stderr

    def cut_calls(self) -> dict[str, int]:
        (line,) = self.result.logged(CUT_CALLS)
        calls: dict[str, int] = line["calls"]
        return calls


async def terminated(process: Process) -> End:
    started = time.monotonic()
    process.send(signal.SIGTERM)
    result = await process.end(60)
    return End(result, time.monotonic() - started)


@asynccontextmanager
async def served(url: str, **settings: Any) -> AsyncIterator[tuple[Process, Clients]]:
    async with (
        serving(url, **QUICK | settings) as process,
        connect(await process.port(), own_connection=True) as clients,
    ):
        yield process, clients


def import_row(password: str = "") -> pb.ImportUsersRequest:
    name = f"i{uuid4().hex[:20]}"
    row = UserImportRow(email=f"{name}@example.com", username=name, password=password)
    return pb.ImportUsersRequest(row=row)


async def import_of_passwords() -> AsyncIterator[pb.ImportUsersRequest]:
    """Import a chunk whose passwords take minutes."""
    yield pb.ImportUsersRequest(config=UserImportConfig())
    for _ in range(200):
        yield import_row(PASSWORD)


async def endless_import() -> AsyncIterator[pb.ImportUsersRequest]:
    """Import one chunk after the other."""
    yield pb.ImportUsersRequest(config=UserImportConfig())
    while True:
        yield import_row()
        # Leaves CPU time to the server.
        await asyncio.sleep(0)


async def assert_nothing_is_half_written(observer: Observer) -> None:
    users = await observer.count("users")
    assert users == await observer.count("user_profiles") == await observer.count("events", "type = 'CREATED'")
    assert not await observer.backends()


# A hash takes about a second.
SLOW = {"argon2_time_cost": 50, "argon2_memory_kib": 8192}


@pytest.mark.parametrize("streams", [1, 80])
async def test_imports_are_cut(database_url: str, observer: Observer, streams: int) -> None:
    async with served(database_url, **SLOW) as (process, clients):
        imports = [endless_import(), *(import_of_passwords() for _ in range(streams))]
        calls = [asyncio.ensure_future(clients.users.ImportUsers(requests)) for requests in imports]
        # Some chunk has been written, and another will be on its way.
        await eventually(lambda: observer.count("users"), 60)
        end = await terminated(process)
        for call in calls:
            await settled(call)
    end.assert_within_budget()
    assert end.cut_calls() == {IMPORT_USERS: 1 + streams}
    await assert_nothing_is_half_written(observer)


async def test_passwords_of_an_import_whose_client_has_gone_are_not_waited_for(
    database_url: str, observer: Observer
) -> None:
    async with served(database_url, shutdown_grace=600, **SLOW) as (process, clients):
        call = clients.users.ImportUsers(import_of_passwords())
        # Each of them waits at most for one password of the import.
        for _ in range(3):
            await clients.create_user()
        call.cancel()
        await eventually(lambda: "CANCELLED" in [line["code"] for line in process.logged("call")])
        end = await terminated(process)
    end.assert_within_budget()
    # The passwords take minutes.
    assert end.seconds < 30
    assert CUT_CALLS not in end.result.stderr
    assert await observer.count("users") == 3


async def test_a_transaction_that_waits_is_rolled_back(database_url: str, observer: Observer) -> None:
    async with served(database_url) as (process, clients):
        user = await clients.create_user()
        async with holding(database_url, "SELECT FROM users WHERE id = $1 FOR UPDATE", UUID(user.id)):
            calls = [asyncio.ensure_future(clients.create_order(user.id)) for _ in range(3)]
            await observer.until_waiting(3)
            end = await terminated(process)
            # PostgreSQL has not been left waiting either.
            assert not await observer.backends()
        for call in calls:
            await settled(call)
    end.assert_within_budget()
    assert end.cut_calls() == {CREATE_ORDER: 3}
    assert end.result.logged(ROLLED_BACK)[0]["units_of_work"] == 3
    assert await observer.count("orders") == 0


async def test_a_commit_that_waits_is_rolled_back(database_url: str, observer: Observer) -> None:
    await observer.connection.execute(COMMIT_WAITS)
    async with served(database_url) as (process, clients):
        user = await clients.create_user()
        async with holding(database_url, HOLD_COMMITS):
            call = asyncio.ensure_future(clients.create_order(user.id))
            await observer.until_waiting(1)
            end = await terminated(process)
            assert not await observer.backends()
        await settled(call)
    end.assert_within_budget()
    assert end.cut_calls() == {CREATE_ORDER: 1}
    assert await observer.count("orders") == 0


async def test_reads_that_wait_are_cancelled(database_url: str, observer: Observer) -> None:
    async with served(database_url) as (process, clients):
        user = await clients.create_user()
        async with holding(database_url, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"):
            calls: list[asyncio.Future[object]] = [
                asyncio.ensure_future(clients.users.GetUser(pb.GetUserRequest(id=user.id))),
                asyncio.ensure_future(clients.users.ListUsers(pb.ListUsersRequest(include_total_size=True))),
                asyncio.ensure_future(clients.users.ExportUsers(pb.ExportUsersRequest()).read()),
                asyncio.ensure_future(clients.users.SearchUsers(pb.SearchUsersRequest(query="ada"))),
            ]
            await eventually(lambda: observer.connection.fetchval(WAITING))
            end = await terminated(process)
            await eventually(lambda: observer.connection.fetchval(GONE), 5)
        for call in calls:
            await settled(call)
    end.assert_within_budget()
    methods = ("ExportUsers", "GetUser", "ListUsers", "SearchUsers")
    assert end.cut_calls() == {f"/commerce.users.v1.UserService/{method}": 1 for method in methods}


# The exports' connections have another name than the others.
_OF_SERVICE = "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'commerce%'"
WAITING = f"SELECT count(*) = 4 {_OF_SERVICE} AND wait_event_type = 'Lock'"
GONE = f"SELECT count(*) = 0 {_OF_SERVICE}"


async def test_a_database_that_does_not_answer_is_left(database_url: str) -> None:
    async with proxy_to(database_url) as proxy, served(proxy.url) as (process, clients):
        user = await clients.create_user()
        # Several connections of the pool are idle.
        await asyncio.gather(*(clients.create_order(user.id) for _ in range(20)))
        proxy.fall_silent(new_too=True)
        call = asyncio.ensure_future(clients.create_order(user.id))
        await asyncio.sleep(0.2)
        end = await terminated(process)
        await settled(call)
    end.assert_within_budget()
    assert end.cut_calls() == {CREATE_ORDER: 1}


async def test_a_password_that_is_still_hashed_is_left(database_url: str, observer: Observer) -> None:
    async with served(database_url) as (process, clients):
        user = await clients.create_user()
        # To verify a password with this hash takes hours.
        endless = (
            PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD).replace("t=1,", "t=4000000000,")
        )
        await observer.connection.execute("UPDATE user_passwords SET password_hash = $1", endless)
        request = pb.VerifyPasswordRequest(email=user.email, password=PASSWORD)
        call = asyncio.ensure_future(clients.users.VerifyPassword(request))
        # Its thread uses all CPU time that there is.
        cpu_time = cpu_seconds(process)
        await eventually(lambda: cpu_seconds(process) > cpu_time + 1)
        end = await terminated(process)
        await settled(call)
    assert end.cut_calls() == {SIGN_IN: 1}
    # A thread cannot be interrupted, and Python would wait for it.
    end.assert_forced()


def cpu_seconds(process: Process) -> float:
    """Return the CPU time that a process has used."""
    # The fields after the name, which may contain spaces.
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


STUCK = """
import sys, threading, time
from service.runtime.exit_deadline import ExitDeadline
ExitDeadline(0.5, lambda: {report})
{work}
"""


@pytest.mark.parametrize(
    ("report", "work", "printed"),
    [
        ("print('cut', flush=True)", "while True: pass", "cut\n"),
        ("print('cut', flush=True)", "threading.Thread(target=time.sleep, args=(60,)).start()", "cut\n"),
        ("time.sleep(60)", "time.sleep(60)", ""),
        ("1 / 0", "time.sleep(60)", ""),
    ],
    ids=["busy", "a thread that exit waits for", "nobody reads the report", "the report fails"],
)
def test_a_process_ends_at_its_deadline(report: str, work: str, printed: str) -> None:
    program = [sys.executable, "-c", STUCK.format(report=report, work=work)]
    ended = subprocess.run(program, cwd=ROOT, timeout=30, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, printed)


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    program = [sys.executable, "-c", STUCK.format(report="print('cut', flush=True)", work="print('done')")]
    ended = subprocess.run(program, cwd=ROOT, timeout=30, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
