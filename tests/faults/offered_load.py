"""Calls that are made at a rate, whether they are answered or not, and what became of them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from benchmarks.calls import BadReplyError, CannotBuildError, Load, Outcome, Protocol, build, make_calls, write_calls
from benchmarks.workloads import Call
from tests.faults.apart import Signals, apart
from tests.faults.experiment import NotPossible
from tests.faults.scheduling import lower_priority_of_session
from tests.support.identities import TokenIssuer
from tests.support.policies import EVERYTHING, policy_of

_UPDATE_USER = "/commerce.users.v1.UserService/UpdateUser"
PUSHBACK = "grpc-retry-pushback-ms"
_FOR_LOAD = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
# How the program calls to find the peak.
_PEAK = Load(connections=4, streams=4)
# A flood has enough calls in flight that it is not slowed by the time that refusals wait.
_FLOOD = Load(connections=8, streams=400, may_refuse=True)


@dataclass
class Polite:
    """What became of the calls of a caller that makes few.

    Attributes:
        times: the seconds that each successful call took, from the moment at which it was due.
        refused: how many calls were refused for load.
        without_pushback: how many of these did not say when to retry.
        failures: the number of other failures by code.
    """

    times: list[float] = field(default_factory=list)
    refused: int = 0
    without_pushback: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return self.refused + self.failures.total()

    def percentile_ms(self, number: int) -> float:
        """Return the milliseconds within which this many of a hundred successful calls were answered."""
        if len(self.times) < 2:
            return float("inf")
        return quantiles(self.times, n=100, method="inclusive")[number - 1] * 1000

    def note(self, due: float, error: grpc.aio.AioRpcError | None) -> None:
        """Count a call that has ended."""
        if error is None:
            self.times.append(time.monotonic() - due)
        elif error.code() in _FOR_LOAD:
            self.refused += 1
            self.without_pushback += PUSHBACK not in dict(error.trailing_metadata() or ())
        else:
            self.failures[error.code().name] += 1


@dataclass
class Flood:
    """What became of the calls of a flood.

    Attributes:
        offered: how many calls were made per second.
        answered: how many of them were answered per second.
        refused: how many calls were refused for load, and told when to retry.
        expired: how many calls were not answered by their deadline.
        problem: how other calls ended; empty if there were none.
    """

    offered: float = 0
    answered: float = 0
    refused: int = 0
    expired: int = 0
    problem: str = ""


async def call_politely(
    signals: Signals, port: int, token: str, user_ids: Sequence[str], seed: int, rate: float
) -> Polite:
    """Change users at Poisson times until told to stop, without retries; counts the calls that have ended."""
    polite, random = Polite(), Random(seed)
    running: set[asyncio.Task[None]] = set()

    async def call(due: float, number: int) -> None:
        request = pb.UpdateUserRequest(user=User(id=user_ids[number % len(user_ids)], full_name=f"Name {number}"))
        try:
            await stub.UpdateUser(request, timeout=10, metadata=(("authorization", f"Bearer {token}"),))
        except grpc.aio.AioRpcError as error:
            polite.note(due, error)
        else:
            polite.note(due, None)
        signals.count()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = UserServiceStub(channel)
        due = time.monotonic()
        number = 0
        while not signals.stop.is_set():
            due += random.expovariate(rate)
            # Even if it is late: so many calls at a time are not due that it could not stop.
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(call(due, number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
        if running:
            await asyncio.wait(running)
    return polite


async def politely(port: int, token: str, user_ids: Sequence[str], seed: int, *, rate: float, seconds: float) -> Polite:
    """Let a process call politely for some seconds."""
    async with apart(call_politely, port, token, user_ids, seed, rate) as calling:
        await calling.until_counted(1)
        await asyncio.sleep(seconds)
        return await calling.result()


class LoadProgram:
    """The load program of the benchmarks, as the caller that makes too many calls.

    A caller in Python takes more of a processor for its calls than a server takes to refuse them. On a small machine,
    that would take from the server what it is measured by.

    Args:
        folder: where to build it.
        port: of the server.
        token: of the caller.
        user_ids: the users to change.

    Raises:
        NotPossible: it cannot be built.
    """

    def __init__(self, folder: Path, port: int, token: str, user_ids: Sequence[str]) -> None:
        try:
            self._program = build(folder)
        except CannotBuildError as error:
            raise NotPossible(error.message) from error
        users = [User(id=user_ids[number % len(user_ids)], full_name=f"Name {number}") for number in range(1000)]
        bodies = [pb.UpdateUserRequest(user=user).SerializeToString() for user in users]
        self._file = folder / "calls"
        write_calls(self._file, [Call(_UPDATE_USER, body, b"") for body in bodies])
        self._port = port
        self._protocol = Protocol(token=token)

    async def peak(self, seconds: float) -> float:
        """Return how many calls per second are answered if sixteen are always in flight."""
        # The first ones only warm up, and show how many to make.
        rate = 300 / (await self._made(300, _PEAK)).seconds
        outcome = await self._made(max(50, int(rate * seconds)), _PEAK)
        return outcome.answers / outcome.seconds

    @asynccontextmanager
    async def flooding(self, rate: float, seconds: float, *, deadline: float | None = None) -> AsyncIterator[Flood]:
        """Make calls at a rate for some seconds, which begin with the block; the result is complete after the block."""
        load, count, flood = replace(_FLOOD, rate=rate, deadline=deadline), int(rate * seconds), Flood()
        making = asyncio.create_task(self._made(count, load))
        yield flood
        try:
            outcome = await making
        except BadReplyError as error:
            flood.problem = error.message
            return
        flood.offered, flood.answered = count / outcome.seconds, outcome.answers / outcome.seconds
        flood.refused, flood.expired = outcome.refused, outcome.expired

    async def _made(self, count: int, load: Load) -> Outcome:
        return await asyncio.to_thread(
            make_calls,
            self._program,
            self._port,
            self._file,
            count,
            load,
            self._protocol,
            started=lower_priority_of_session,
        )


def write_tokens(folder: Path, *names: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Write a policy that allows these callers everything; returns their tokens by name, and the settings."""
    issuer = TokenIssuer("load")
    (folder / "load.json").write_text(issuer.jwks())
    (folder / "issuers.toml").write_text(issuer.table("load.json"))
    (folder / "policy.toml").write_text(policy_of({f"jwt:load:{name}": EVERYTHING for name in names}))
    settings = {"jwt_issuers_file": folder / "issuers.toml", "policy_file": folder / "policy.toml"}
    # For longer than any run.
    until = int(time.time()) + 3600
    return {name: issuer.token(sub=name, exp=until) for name in names}, settings
