"""Twice as many calls as the server can answer, with deadlines that most of them miss, beside another caller."""

import asyncio

from tests.faults.callers import create_users
from tests.faults.connections import POOL_SIZE
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.offered_load import offering, peak, write_keys
from tests.support.databases import observing
from tests.support.processes import serving

_OVERLOAD = 2
_POLITE_RATE = 20.0
# How many times the quiet median the deadlines are.
_DEADLINE = 3
_MOST_TIMES_QUIET = 2
_MOST_CONNECTIONS = POOL_SIZE + 5
# All sessions that clients have begun, also short ones, except those of cancel requests.
_SESSIONS = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"


async def _run(plan: Plan) -> Result:
    return await _storm(plan, admission=True)


async def _control(plan: Plan) -> Result:
    return await _storm(plan, admission=False)


async def _storm(plan: Plan, *, admission: bool) -> Result:
    seconds = plan.size(full=10, smoke=2)
    keys, settings = write_keys(plan.folder, "storm", "polite")
    async with (
        plan.database() as url,
        observing(url) as observer,
        serving(url, admission=admission, **settings) as server,
    ):
        users = await create_users(url, 60)
        theirs, own = users[:40], users[40:]
        port = await server.port()
        highest = await peak(port, keys["storm"], theirs, seconds)
        async with offering(port, keys["polite"], own, plan.seed, rate=_POLITE_RATE) as quiet:
            await asyncio.sleep(seconds)
        deadline = _DEADLINE * quiet.p50_ms / 1000
        before = await observer.connection.fetchval(_SESSIONS)
        async with offering(
            port, keys["storm"], theirs, plan.seed, rate=_OVERLOAD * highest, deadline=deadline
        ) as storm:
            await asyncio.sleep(1)
            async with offering(port, keys["polite"], own, plan.seed + 1, rate=_POLITE_RATE) as polite:
                await asyncio.sleep(seconds)
        # PostgreSQL reports its statistics after a second.
        await asyncio.sleep(1.5)
        connections = await observer.connection.fetchval(_SESSIONS) - before
        await observer.until_idle()
    expired = storm.failures["DEADLINE_EXCEEDED"]
    result = Result(
        {
            "calls of the storm, of peak": _OVERLOAD,
            "expired": expired,
            "answered": len(storm.times),
            "new connections": connections,
            "p99 of the polite caller, ms": polite.p99_ms,
            "quiet, ms": quiet.p99_ms,
            "failed calls of the polite caller": polite.refused + polite.failures.total(),
        }
    )
    result.require(connections <= _MOST_CONNECTIONS, f"more than {_MOST_CONNECTIONS} connections were opened")
    result.require(storm.without_pushback == 0, "a refusal did not say when to retry")
    result.require_in_time(expired > 0, "void: no deadline passed")
    result.require_in_time(
        polite.p99_ms <= _MOST_TIMES_QUIET * quiet.p99_ms,
        "the p99 of the polite caller more than doubled",
    )
    result.require_in_time(polite.refused + polite.failures.total() == 0, "calls of the polite caller failed")
    return result


EXPERIMENT = Experiment(
    name="deadline-storms",
    fault="one caller makes twice as many calls as the server can answer, with short deadlines, beside a polite one",
    passes="at most 15 new connections to PostgreSQL; p99 of the polite caller at most twice that of quiet",
    run=_run,
    control=_control,
    defence="admission",
)
