"""Twice as many calls as the server can answer, with deadlines that many of them miss, beside another caller."""

import asyncio

from tests.faults.callers import create_users
from tests.faults.connections import POOL_SIZE
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.offered_load import LoadProgram, politely, write_tokens
from tests.support.databases import observing
from tests.support.processes import serving

_OVERLOAD = 2
_POLITE_RATE = 50.0
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
    seconds = plan.size(full=20, smoke=2)
    tokens, settings = write_tokens(plan.folder, "storm", "polite")
    async with (
        plan.database() as url,
        observing(url) as observer,
        serving(url, admission=admission, max_connection_age=0, **settings) as server,
    ):
        users = await create_users(url, 60)
        theirs, own = users[:40], users[40:]
        port = await server.port()
        program = LoadProgram(plan.folder, port, tokens["storm"], theirs)
        highest = await program.peak(seconds / 2)
        quiet = await politely(port, tokens["polite"], own, plan.seed, rate=_POLITE_RATE, seconds=seconds)
        deadline = _DEADLINE * quiet.percentile_ms(50) / 1000
        before = await observer.connection.fetchval(_SESSIONS)
        async with program.flooding(_OVERLOAD * highest, seconds + 2, deadline=deadline) as storm:
            await asyncio.sleep(1)
            polite = await politely(port, tokens["polite"], own, plan.seed + 1, rate=_POLITE_RATE, seconds=seconds)
        # PostgreSQL reports its statistics after a second.
        await asyncio.sleep(1.5)
        connections = await observer.connection.fetchval(_SESSIONS) - before
        await observer.until_idle()
    result = Result(
        {
            "calls of the storm, of peak": storm.offered / highest,
            "deadline, ms": deadline * 1000,
            "expired": storm.expired,
            "refused": storm.refused,
            "answered, of peak": storm.answered / highest,
            "new connections": connections,
            "p99 of the polite caller, ms": polite.percentile_ms(99),
            "quiet, ms": quiet.percentile_ms(99),
            "p50 of the polite caller, ms": polite.percentile_ms(50),
            "quiet p50, ms": quiet.percentile_ms(50),
            "failed calls of the polite caller": polite.failed,
        }
    )
    result.require(connections <= _MOST_CONNECTIONS, f"more than {_MOST_CONNECTIONS} connections were opened")
    result.require(not storm.problem, storm.problem)
    result.require_in_time(storm.expired > 0, "void: no deadline passed")
    result.require_in_time(
        polite.percentile_ms(99) <= _MOST_TIMES_QUIET * quiet.percentile_ms(99),
        "the p99 of the polite caller more than doubled",
    )
    result.require_in_time(polite.failed == 0, "calls of the polite caller failed")
    return result


EXPERIMENT = Experiment(
    name="deadline-storms",
    fault="one caller makes twice as many calls as the server can answer, with short deadlines, beside a polite one",
    passes="at most 15 new connections to PostgreSQL; p99 of the polite caller at most twice that of quiet",
    run=_run,
    control=_control,
    defence="admission",
)
