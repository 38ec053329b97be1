"""Servers that are killed while callers place orders."""

import asyncio

from tests.faults.apart import apart
from tests.faults.callers import create_users, stored
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.placing_orders import place_orders
from tests.support.processes import free_port, serving

_CALLERS = 8


async def _run(plan: Plan) -> Result:
    return await _kill_servers(plan, plan.size(full=50, smoke=1), with_request_id=True)


async def _control(plan: Plan) -> Result:
    # A few kills are enough to have duplicates.
    return await _kill_servers(plan, 10, with_request_id=False)


async def _kill_servers(plan: Plan, kills: int, *, with_request_id: bool) -> Result:
    random = plan.random()
    port = free_port()
    async with plan.database() as url:
        users = await create_users(url, _CALLERS)
        async with apart(place_orders, port, users, plan.seed, with_request_id=with_request_id) as callers:
            for _ in range(kills):
                async with serving(url, port) as server:
                    await callers.until_counted(20)
                    # At any point of the calls that are running.
                    await asyncio.sleep(random.uniform(0, 0.05))
                    server.kill()
            async with serving(url, port):
                told = await callers.result()
        found = await stored(url, told.acknowledged)
    result = Result(
        {
            "kills": kills,
            "acknowledged": len(told.acknowledged),
            "failed attempts": told.failures.total(),
            "duplicates": found.duplicates,
            "acknowledged and missing": found.missing,
        }
    )
    result.require(found.duplicates == 0, "an order was written twice")
    result.require(found.missing == 0, "an acknowledged order is missing")
    result.require(found.incomplete == 0, f"{found.incomplete} orders lack their item or their event")
    result.require(found.orders - found.duplicates == len(told.acknowledged), "an order was not acknowledged")
    return result


EXPERIMENT = Experiment(
    name="server-kills",
    fault="the server is killed (SIGKILL) 50 times, and callers retry",
    passes="no order is written twice, and no acknowledged order is missing",
    run=_run,
    control=_control,
    defence="request ids",
)
