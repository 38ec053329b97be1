"""Three times as many calls as the server can answer, all of one caller, beside another caller that makes few."""

import asyncio

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.health import check_health
from tests.faults.offered_load import offering, peak, write_keys
from tests.support.processes import serving

_OVERLOAD = 3
_POLITE_RATE = 20.0
_LEAST_GOODPUT = 0.8
_MOST_TIMES_QUIET = 2


async def _run(plan: Plan) -> Result:
    return await _flood(plan, admission=True)


async def _control(plan: Plan) -> Result:
    return await _flood(plan, admission=False)


async def _flood(plan: Plan, *, admission: bool) -> Result:
    seconds = plan.size(full=10, smoke=2)
    keys, settings = write_keys(plan.folder, "flood", "polite")
    async with plan.database() as url, serving(url, admission=admission, **settings) as server:
        users = await create_users(url, 60)
        theirs, own = users[:40], users[40:]
        port = await server.port()
        highest = await peak(port, keys["flood"], theirs, seconds)
        async with offering(port, keys["polite"], own, plan.seed, rate=_POLITE_RATE) as quiet:
            await asyncio.sleep(seconds)
        async with apart(check_health, port) as checks:
            async with offering(port, keys["flood"], theirs, plan.seed, rate=_OVERLOAD * highest) as flood:
                # Until the queues are full, and the limit has been found.
                await asyncio.sleep(1)
                async with offering(port, keys["polite"], own, plan.seed + 1, rate=_POLITE_RATE) as polite:
                    await asyncio.sleep(seconds)
            health = await checks.result()
    goodput, slower = flood.per_second / highest, polite.p99_ms / quiet.p99_ms
    result = Result(
        {
            "peak, calls/s": highest,
            "goodput of the flood, of peak": goodput,
            "refused": flood.refused,
            "refused without push-back": flood.without_pushback + polite.without_pushback,
            "p99 of the polite caller, ms": polite.p99_ms,
            "quiet, ms": quiet.p99_ms,
            "p50 of the polite caller, ms": polite.p50_ms,
            "quiet p50, ms": quiet.p50_ms,
            "failed calls of the polite caller": polite.refused + polite.failures.total(),
            "failed health checks": health.failed,
        }
    )
    result.require(flood.without_pushback + polite.without_pushback == 0, "a refusal did not say when to retry")
    result.require(health.failed == 0, "a health check failed")
    result.require_in_time(goodput >= _LEAST_GOODPUT, "less than 80 % of the peak was answered")
    result.require_in_time(slower <= _MOST_TIMES_QUIET, "the p99 of the polite caller more than doubled")
    result.require_in_time(polite.refused + polite.failures.total() == 0, "calls of the polite caller failed")
    return result


EXPERIMENT = Experiment(
    name="floods",
    fault="one caller makes three times as many calls as the server can answer, beside a polite one",
    passes="goodput at least 80 % of the peak; p99 of the polite caller at most twice that of quiet; every refusal "
    "says when to retry; no health check fails",
    run=_run,
    control=_control,
    defence="admission",
)
