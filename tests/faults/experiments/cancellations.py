"""Callers that cancel their calls at random points."""

import asyncio
from collections.abc import Sequence

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.connections import OTHERS, POOL_SIZE, connections, free_slots
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.traffic import cancel_calls
from tests.faults.without import without
from tests.support.databases import Observer, observing
from tests.support.processes import COMMAND, serving

_CALLERS = 64
# Callers share users, so that their calls wait for each other's locks, too.
_USERS = 8
_TASKS = "service.runtime.shielded_tasks:ShieldedTasks"


async def _run(plan: Plan) -> Result:
    return await _cancel(plan, plan.size(full=10_000, smoke=300), COMMAND)


async def _control(plan: Plan) -> Result:
    program = without(
        f"{_TASKS}.run=tests.faults.replacements:run_unshielded",
        f"{_TASKS}.result=tests.faults.replacements:result_unshielded",
    )
    return await _cancel(plan, 2_000, program)


async def _cancel(plan: Plan, times: int, program: Sequence[str]) -> Result:
    async with plan.database() as url, observing(url) as observer, serving(url, program=program) as server:
        users = await create_users(url, _USERS)
        username = await observer.connection.fetchval("SELECT username FROM users LIMIT 1")
        port = await server.port()
        before = await _sessions(observer)
        async with apart(cancel_calls, port, [*users] * (_CALLERS // _USERS), plan.seed, times=times) as callers:
            ended = await callers.ended()
        await asyncio.sleep(1)
        left = await connections(observer)
        opened = await _sessions(observer) - before
        free = await free_slots(url, observer, port, username)
        failures = ended.total() - ended["CANCELLED"] - ended["OK"]
        # Also of gRPC itself, when a connection reaches its maximum age while calls are sent on it.
        unavailable = sum(count for status, count in ended.items() if status.startswith("UNAVAILABLE"))
        logged = [line for line in server.stderr().splitlines() if '"level":"error"' in line]
    result = Result(
        {
            "cancelled": ended["CANCELLED"],
            "answered before": ended["OK"],
            "UNAVAILABLE": unavailable,
            "other failures": failures - unavailable,
            "statements after 1 s": left.active,
            "transactions after 1 s": left.idle_in_transaction,
            "locks after 1 s": left.locks,
            "new connections": opened,
            "usable of the pool": free,
            "errors in the log": len(logged),
        }
    )
    result.require(left.idle_in_transaction == 0, "transactions are left open")
    result.require(free == POOL_SIZE, "connections of the pool are lost")
    result.require(opened <= POOL_SIZE + OTHERS, "cancelled calls cost connections")
    result.require(not logged, f"the server logged errors: {logged[:1]}")
    result.require(failures == unavailable, f"calls failed in another way: {dict(ended)}")
    result.require_in_time(left.active == 0 and left.locks == 0, "statements still run or hold locks after 1 s")
    return result


async def _sessions(observer: Observer) -> int:
    """Return how many connections to the database were ever opened."""
    # Other backends report theirs within a second.
    await asyncio.sleep(1.5)
    query = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    return int(await observer.connection.fetchval(query))


EXPERIMENT = Experiment(
    name="cancellations",
    fault="callers cancel 10,000 calls at random points",
    passes="after 1 s no statement, open transaction or lock is left; no connection was lost or opened for it",
    run=_run,
    control=_control,
    defence="shielded statements",
)
