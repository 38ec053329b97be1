"""Backends that are terminated every half second, as by an administrator, a failover or a proxy that restarts."""

import asyncio
from collections.abc import Sequence

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.connections import OTHERS, POOL_SIZE, connections, free_slots
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.traffic import make_calls
from tests.faults.without import without
from tests.support.databases import observing
from tests.support.processes import COMMAND, serving

_CALLERS = 32
_MAX_FAILED = 0.001


async def _run(plan: Plan) -> Result:
    return await _terminate_backends(plan, plan.size(full=120, smoke=4), COMMAND)


async def _control(plan: Plan) -> Result:
    return await _terminate_backends(plan, 30, without("service.rpc.retry:MAX_ATTEMPTS=1"))


async def _terminate_backends(plan: Plan, times: int, program: Sequence[str]) -> Result:
    random = plan.random()
    terminated = 0
    async with plan.database() as url, observing(url) as observer, serving(url, program=program) as server:
        users = await create_users(url, _CALLERS)
        username = await observer.connection.fetchval("SELECT username FROM users LIMIT 1")
        async with apart(make_calls, await server.port(), users, plan.seed) as callers:
            await callers.until_counted(100)
            for number in range(times):
                await asyncio.sleep(0.5)
                pids = sorted(await observer.backends())
                # Mostly one of them; every tenth time all.
                chosen = pids if number % 10 == 9 else random.sample(pids, min(1, len(pids)))
                await observer.connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", chosen)
                terminated += len(chosen)
            seen = await callers.result()
        await observer.until_idle()
        left = await connections(observer)
        free = await free_slots(url, observer, await server.port(), username)
    failed = seen.failures.total()
    result = Result(
        {
            "terminated backends": terminated,
            "calls": seen.calls,
            "failed calls": failed,
            "failed, %": 100 * failed / seen.calls,
            "connections afterwards": left.open,
            "usable of the pool": free,
        }
    )
    result.figures |= {f"failed with {reason}": count for reason, count in seen.failures.items()}
    result.require(left.open <= POOL_SIZE + OTHERS, "connections are left open")
    result.require(left.idle_in_transaction == 0, "transactions are left open")
    result.require(free == POOL_SIZE, "connections of the pool are lost")
    # A slow machine makes few calls, so that each failed one weighs more.
    result.require_in_time(failed <= _MAX_FAILED * seen.calls, "more than 0.1 % of the calls failed")
    return result


EXPERIMENT = Experiment(
    name="terminated-backends",
    fault="a backend of the service, every tenth time all of them, is terminated every 0.5 s",
    passes="at most 0.1 % of the calls fail, without any retry by callers; no connection is leaked",
    run=_run,
    control=_control,
    defence="the retry of calls",
)
