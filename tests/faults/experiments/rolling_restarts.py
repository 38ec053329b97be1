"""Servers that are restarted one after the other while callers go on, in each of the ways to run several."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.steady_callers import Outcomes, call_steadily
from tests.support.processes import Process, children, free_port, serving
from tests.support.waiting import eventually

_CALLERS = 8
# Short, because a server that stops waits for its clients to leave.
_AGE_SECONDS = 1.0
# Of the calls of callers that do not retry, at most one in so many may fail.
_RACES = 20_000
_MIN_CALLS = 100_000
_RESTARTS = 20
_PATIENCE_SECONDS = 120.0

# Restarts one server; all of them together are restarted this many times.
Restart = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def _own_ports(url: str, **settings: Any) -> AsyncIterator[tuple[list[int], Restart]]:
    ports = [free_port(), free_port()]
    async with _two_servers(url, ports, **settings) as restart:
        yield ports, restart


@asynccontextmanager
async def _shared_port(url: str, **settings: Any) -> AsyncIterator[tuple[list[int], Restart]]:
    port = free_port()
    async with _two_servers(url, [port, port], reuse_port=True, **settings) as restart:
        yield [port], restart


@asynccontextmanager
async def _two_servers(url: str, ports: Sequence[int], **settings: Any) -> AsyncIterator[Restart]:
    async with AsyncExitStack() as stack:

        async def start(port: int) -> Process:
            return await stack.enter_async_context(serving(url, port, **settings))

        servers = list(await asyncio.gather(*map(start, ports)))

        async def restart(number: int) -> None:
            place = number % len(servers)
            ended = await servers[place].terminate()
            assert ended.status == 0
            servers[place] = await start(ports[place])

        yield restart


@asynccontextmanager
async def _workers(url: str, **settings: Any) -> AsyncIterator[tuple[list[int], Restart]]:
    async with serving(url, workers=2, **settings) as parent:
        await parent.until_logged("serving with workers")

        async def restart(number: int) -> None:
            if number % 2:
                # The last roll has restarted both workers.
                return
            before = children(parent.pid)
            parent.send(signal.SIGHUP)
            await eventually(partial(_are_others, parent.pid, before), _PATIENCE_SECONDS)

        yield [await parent.port()], restart
        assert (await parent.terminate()).status == 0


def _are_others(parent: int, before: Sequence[int]) -> bool:
    now = children(parent)
    return len(now) == len(before) and not set(now) & set(before)


_WAYS = {"own ports": _own_ports, "shared port": _shared_port, "workers": _workers}


async def _run(plan: Plan) -> Result:
    if plan.smoke:
        return await _roll(plan, 1, _AGE_SECONDS)
    # However slow the machine is.
    calls = _MIN_CALLS // (_RESTARTS * len(_WAYS)) + 1
    result = await _roll(plan, _RESTARTS, _AGE_SECONDS, calls)
    result.require(int(result.figures["calls"]) >= _MIN_CALLS, f"there were fewer than {_MIN_CALLS} calls")
    return result


async def _control(plan: Plan) -> Result:
    return await _roll(plan, restarts=4, max_connection_age=0)


async def _roll(plan: Plan, restarts: int, max_connection_age: float, calls: int = 50) -> Result:
    """Restart servers in each of the ways, at least some calls each time."""
    # Callers that never pause would take the processors from the servers that start.
    pause = 0.05 if plan.smoke else 0.008
    # Servers take their time to start and to stop.
    ways = ["own ports"] if plan.smoke else [*_WAYS]
    result = Result({"restarts": restarts * len(ways)})
    retrying, others = Outcomes(), Outcomes()
    for name in ways:
        async with plan.database() as url:
            users = await create_users(url, _CALLERS)
            async with (
                _WAYS[name](url, max_connection_age=max_connection_age) as (ports, restart),
                apart(call_steadily, ports, users, plan.seed, pause=pause) as callers,
            ):
                await callers.until_counted(50)
                for number in range(restarts):
                    goal = callers.counted + calls
                    await restart(number)
                    await callers.until_counted(max(50, goal - callers.counted))
                outcomes = await callers.result()
        for total, some in zip((retrying, others), outcomes, strict=True):
            total.add(some)
        failed = sum(some.races + some.failures.total() for some in outcomes)
        result.figures[f"failed with {name}"] = failed
    lost = retrying.races + retrying.failures.total()
    result.figures |= {
        "calls": retrying.calls + others.calls,
        "failed in spite of retries": lost,
        "calls without retries": others.calls,
        "of these, UNAVAILABLE by gRPC": others.races,
        "failed otherwise": others.failures.total(),
        "slowest call, s": max(retrying.slowest, others.slowest),
    }
    result.require(lost == 0, f"calls failed in spite of retries: {retrying.races} and {dict(retrying.failures)}")
    result.require(not others.failures, f"calls without retries failed: {dict(others.failures)}")
    # A few calls say nothing about one in so many.
    if not plan.smoke:
        result.require(others.races * _RACES <= others.calls, f"more than one call in {_RACES} met gRPC's race")
    return result


EXPERIMENT = Experiment(
    name="rolling-restarts",
    fault="servers are restarted under load, 20 times in each way: two servers on ports of their own behind round "
    "robin, two on one port, and two workers by SIGHUP; each new one is cold",
    passes="of at least 100,000 calls, none fails of callers that retry UNAVAILABLE; of the others, at most one in "
    "20,000 fails, with the UNAVAILABLE of gRPC itself",
    run=_run,
    control=_control,
    defence="a maximum age of connections, by which clients leave before a server stops",
)
