"""Callers that make calls at a rate, whether they are answered or not, and what became of the calls."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from service.rpc.identity.key_file import new_key
from tests.faults.apart import Signals, apart
from tests.support.policies import EVERYTHING, policy_of, write_key_file

PUSHBACK = "grpc-retry-pushback-ms"
_FOR_LOAD = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
# By default, all channels of a process share one connection.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_CONNECTIONS = 4
# Calls that a process has in flight at most; further ones fail without being made. Only a server that answers nothing
# lets a process reach this.
_MOST_IN_FLIGHT = 3000


@dataclass
class Answered:
    """What became of calls.

    Attributes:
        seconds: for how long calls were made.
        times: the seconds that each successful call took, from the moment at which it was due.
        refused: how many calls were refused for load.
        without_pushback: how many of these did not say when to retry.
        failures: the number of other failures by code.
    """

    seconds: float = 0
    times: list[float] = field(default_factory=list)
    refused: int = 0
    without_pushback: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """The number of successful calls in a second."""
        return len(self.times) / self.seconds

    @property
    def p50_ms(self) -> float:
        """The median of the times."""
        return self._percentile(50)

    @property
    def p99_ms(self) -> float:
        """The time within which 99 of 100 successful calls were answered."""
        return self._percentile(99)

    def _percentile(self, number: int) -> float:
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


class _Caller:
    """Changes users, each call another one."""

    def __init__(self, port: int, key: str, user_ids: Sequence[str], deadline: float) -> None:
        target = f"127.0.0.1:{port}"
        self.channels = [grpc.aio.insecure_channel(target, options=_OWN_CONNECTION) for _ in range(_CONNECTIONS)]
        self._stubs = [UserServiceStub(channel) for channel in self.channels]
        self._metadata = (("x-api-key", key),)
        self._user_ids = user_ids
        self._deadline = deadline
        self._made = 0
        self.answered = Answered()

    async def call(self, due: float) -> None:
        """Make a call and count it."""
        self._made += 1
        stub = self._stubs[self._made % _CONNECTIONS]
        user = User(id=self._user_ids[self._made % len(self._user_ids)], full_name=f"Name {self._made}")
        try:
            await stub.UpdateUser(pb.UpdateUserRequest(user=user), timeout=self._deadline, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            self.answered.note(due, error)
        else:
            self.answered.note(due, None)

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()


async def offer(
    signals: Signals, port: int, key: str, user_ids: Sequence[str], seed: int, *, rate: float, deadline: float = 10
) -> Answered:
    """Make calls at Poisson times until told to stop, without retries; counts the calls that have ended.

    Args:
        signals: from `apart`.
        port: of the server.
        key: the API key of the caller.
        user_ids: the users to change.
        seed: of what is random.
        rate: calls per second.
        deadline: of each call, in seconds.
    """
    caller, random = _Caller(port, key, user_ids, deadline), Random(seed)
    running: set[asyncio.Task[None]] = set()
    begin = due = time.monotonic()
    while not signals.stop.is_set():
        due += random.expovariate(rate)
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if len(running) >= _MOST_IN_FLIGHT:
            caller.answered.failures["NOT_MADE"] += 1
            # So that the stop is seen.
            await asyncio.sleep(0)
            continue
        task = asyncio.create_task(caller.call(due))
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda _task: signals.count())
    caller.answered.seconds = time.monotonic() - begin
    if running:
        await asyncio.wait(running)
    await caller.close()
    return caller.answered


async def saturate(
    signals: Signals, port: int, key: str, user_ids: Sequence[str], *, callers: int, deadline: float = 10
) -> Answered:
    """Let some callers make one call after the other until told to stop; counts the calls that have ended."""
    caller = _Caller(port, key, user_ids, deadline)
    begin = time.monotonic()

    async def call_repeatedly() -> None:
        while not signals.stop.is_set():
            await caller.call(time.monotonic())
            signals.count()

    await asyncio.gather(*(call_repeatedly() for _ in range(callers)))
    caller.answered.seconds = time.monotonic() - begin
    await caller.close()
    return caller.answered


@asynccontextmanager
async def offering(
    port: int, key: str, user_ids: Sequence[str], seed: int, *, rate: float, deadline: float = 10
) -> AsyncIterator[Answered]:
    """Make calls at a rate in a process of its own while the block runs; the result is complete after it."""
    answered = Answered()
    async with apart(offer, port, key, user_ids, seed, rate=rate, deadline=deadline) as offered:
        await offered.until_counted(1)
        yield answered
        vars(answered).update(vars(await offered.result()))


async def peak(port: int, key: str, user_ids: Sequence[str], seconds: float) -> float:
    """Return how many calls per second are answered if sixteen callers never pause."""
    async with apart(saturate, port, key, user_ids, callers=16) as callers:
        await callers.until_counted(50)
        await asyncio.sleep(seconds)
        return (await callers.result()).per_second


def write_keys(folder: Path, *names: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Write API keys and a policy that allows everything; returns the keys by name, and the settings."""
    made = {name: new_key(name, datetime.now(UTC)) for name in names}
    file = write_key_file(folder, [stored for _, stored in made.values()])
    policy = folder / "policy.toml"
    policy.write_text(policy_of({f"key:{name}": EVERYTHING for name in names}))
    return {name: key for name, (key, _) in made.items()}, {"api_keys_file": file, "policy_file": policy}
