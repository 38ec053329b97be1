"""Three times as many calls as the server can answer, all of one caller, beside another caller that makes few."""

import asyncio

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.health import check_health
from tests.faults.offered_load import LoadProgram, Polite, politely, write_tokens
from tests.support.processes import serving

_OVERLOAD = 3
_POLITE_RATE = 50.0
_LEAST_GOODPUT = 0.8
_MOST_TIMES_QUIET = 2


async def _run(plan: Plan) -> Result:
    return await _flood(plan, admission=True)


async def _control(plan: Plan) -> Result:
    return await _flood(plan, admission=False)


async def _flood(plan: Plan, *, admission: bool) -> Result:
    seconds = plan.size(full=20, smoke=2)
    tokens, settings = write_tokens(plan.folder, "flood", "polite")
    async with plan.database() as url, serving(url, admission=admission, max_connection_age=0, **settings) as server:
        users = await create_users(url, 60)
        theirs, own = users[:40], users[40:]
        port = await server.port()
        program = LoadProgram(plan.folder, port, tokens["flood"], theirs)

        async def measured(number: int) -> Polite:
            return await politely(port, tokens["polite"], own, plan.seed + number, rate=_POLITE_RATE, seconds=seconds)

        async with apart(check_health, port) as checks:
            quiet = await measured(0)
            # Beside the same others as the flood.
            peaking = asyncio.create_task(program.peak(seconds))
            await measured(1)
            highest = await peaking + _POLITE_RATE
            async with program.flooding(_OVERLOAD * highest, seconds + 2) as flood:
                # Until the queue is full.
                await asyncio.sleep(1)
                polite = await measured(2)
            health = await checks.result()
    goodput = (flood.answered + _POLITE_RATE) / highest
    slower = polite.percentile_ms(99) / quiet.percentile_ms(99)
    result = Result(
        {
            "peak, calls/s": highest,
            "offered, of peak": flood.offered / highest,
            "goodput of both, of peak": goodput,
            "refused": flood.refused,
            "refused without push-back": polite.without_pushback,
            "p99 of the polite caller, ms": polite.percentile_ms(99),
            "quiet, ms": quiet.percentile_ms(99),
            "p50 of the polite caller, ms": polite.percentile_ms(50),
            "quiet p50, ms": quiet.percentile_ms(50),
            "failed calls of the polite caller": polite.failed,
            "failed health checks": health.failed,
        }
    )
    # The load program takes a refusal that does not say when to retry for a bad reply.
    result.require(not flood.problem, flood.problem)
    result.require(polite.without_pushback == 0, "a refusal did not say when to retry")
    result.require(health.failed == 0, "a health check failed")
    result.require_in_time(flood.refused > 0, "void: no call was refused")
    result.require_in_time(goodput >= _LEAST_GOODPUT, "less than 80 % of the peak was answered")
    result.require_in_time(slower <= _MOST_TIMES_QUIET, "the p99 of the polite caller more than doubled")
    result.require_in_time(polite.failed == 0, "calls of the polite caller failed")
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
