"""A network that stops carrying packets to PostgreSQL, without a word to either side."""

import asyncio
import time
from collections.abc import Callable, Sequence

from tests.faults.apart import apart
from tests.faults.callers import create_users, stored
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.health import check_health
from tests.faults.placing_orders import place_orders
from tests.faults.without import without
from tests.support.processes import COMMAND, Process, serving
from tests.support.proxies import Proxy, proxy_to

_CALLERS = 16
_DEADLINE_SECONDS = 2.0
# A handler may take this much longer than the deadline of its call.
_MARGIN_SECONDS = 3.0
_BACK_SECONDS = 3.0
_HEALTH_SECONDS = 0.1
# Without the defence, callers may never be served again.
_PATIENCE_SECONDS = 40.0

Fault = Callable[[Proxy], None]


def _drop_all(proxy: Proxy) -> None:
    proxy.black_hole(new_too=True)


def _answer_nothing(proxy: Proxy) -> None:
    proxy.fall_silent(new_too=True)


def _drop_open(proxy: Proxy) -> None:
    proxy.black_hole()


def _forget_open(proxy: Proxy) -> None:
    proxy.fall_silent()


async def _run(plan: Plan) -> Result:
    outages = [(_drop_all, 30), (_answer_nothing, 30), (_drop_open, 0), (_forget_open, 0)]
    if plan.smoke:
        outages = [(_drop_all, 1), (_forget_open, 0)]
    return await _black_holes(plan, outages, COMMAND)


async def _control(plan: Plan) -> Result:
    lost_connections = "service.db.connections.lost_connections"
    program = without(
        f"{lost_connections}:_SOCKET_OPTIONS={{}}",
        f"{lost_connections}:_LONG_SECONDS=1000.0",
        "service.db.connections.executor:_MARGIN_SECONDS=1000.0",
    )
    return await _black_holes(plan, [(_forget_open, 0)], program)


async def _black_holes(plan: Plan, outages: Sequence[tuple[Fault, int]], program: Sequence[str]) -> Result:
    moments = []
    async with (
        plan.database() as url,
        proxy_to(url) as proxy,
        # The server ends the handlers, not the callers: those have no deadline of their own.
        serving(proxy.url, program=program, default_deadline=_DEADLINE_SECONDS) as server,
    ):
        port = await server.port()
        users = await create_users(url, _CALLERS)
        async with (
            apart(place_orders, port, users, plan.seed, deadline=None) as callers,
            apart(check_health, port) as probe,
        ):
            for fault, seconds in outages:
                await callers.until_counted(20 * _CALLERS)
                fault(proxy)
                await asyncio.sleep(seconds)
                proxy.serve_new()
                moments.append(time.monotonic())
                try:
                    await callers.until_counted(2 * _CALLERS, _PATIENCE_SECONDS)
                except AssertionError:
                    return Result({"outages": len(moments)}, broken=["callers were not served again"])
            # Until all of them are served again, also where the last outage has just ended.
            await callers.until_counted(20 * _CALLERS)
            told = await callers.result()
            health = await probe.result()
        longest = _longest_handler(server)
        found = await stored(url, told.acknowledged)
    back = max(told.seconds_until_all_served(moment, _CALLERS) for moment in moments)
    result = Result(
        {
            "outages": len(outages),
            "acknowledged": len(told.acknowledged),
            "failed attempts": told.failures.total(),
            "longest handler beyond its deadline, s": longest - _DEADLINE_SECONDS,
            "longest until all callers were served again, s": back,
            "health checks": health.checks,
            "failed health checks": health.failed,
            "longest health check, ms": 1000 * health.longest,
            "acknowledged and missing": found.missing,
            "duplicates": found.duplicates,
        }
    )
    result.require(health.failed == 0, "a health check failed")
    result.require(found.missing == 0, "an acknowledged order is missing")
    result.require(found.duplicates == 0, "an order was written twice")
    result.require_in_time(longest <= _DEADLINE_SECONDS + _MARGIN_SECONDS, "a handler ended 3 s after its deadline")
    result.require_in_time(back <= _BACK_SECONDS, "a caller waited more than 3 s after the end of an outage")
    result.require_in_time(health.longest <= _HEALTH_SECONDS, "a health check took more than 100 ms")
    return result


def _longest_handler(server: Process) -> float:
    """Return the longest time in seconds that the server has worked on a call."""
    return max(float(line["duration_ms"]) for line in server.logged("call")) / 1000


EXPERIMENT = Experiment(
    name="black-holes",
    fault="packets to PostgreSQL are dropped for 30 s, acknowledged and not answered for 30 s; then open connections "
    "only are dropped or forgotten",
    passes="handlers end within 3 s of their deadlines, health is answered within 100 ms, all callers are served 3 s "
    "after the end; nothing acknowledged is lost",
    run=_run,
    control=_control,
    defence="the search for lost connections",
)
