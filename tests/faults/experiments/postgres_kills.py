"""PostgreSQL, or single backends of it, that are killed while callers place orders."""

import asyncio
import time

from tests.faults.apart import apart
from tests.faults.callers import create_users, stored
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.placing_orders import place_orders
from tests.support.databases import driver_connection, observing
from tests.support.own_postgres import OwnPostgres, own_postgres
from tests.support.processes import serving
from tests.support.waiting import eventually

_CALLERS = 8


async def _run(plan: Plan) -> Result:
    return await _kill_postgres(plan, plan.size(full=20, smoke=3), synchronous_commit="on")


async def _control(plan: Plan) -> Result:
    return await _kill_postgres(plan, 6, synchronous_commit="off")


async def _kill_postgres(plan: Plan, kills: int, *, synchronous_commit: str) -> Result:
    random = plan.random()
    # Without synchronous commits, the log is written this often.
    with own_postgres(plan.folder / "postgres", {"wal_writer_delay": "2s"}) as postgres:
        url = await postgres.migrated_database()
        users = await create_users(url, _CALLERS)
        async with driver_connection(url) as connection:
            name = await connection.fetchval("SELECT current_database()")
            await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = {synchronous_commit}")
            await connection.execute("CHECKPOINT")
        async with (
            serving(url) as server,
            apart(place_orders, await server.port(), users, plan.seed) as callers,
        ):
            moments = []
            for number in range(kills):
                await callers.until_counted(100)
                await asyncio.sleep(random.uniform(0, 0.1))
                moments.append(await _kill(postgres, url, ("backend", "postmaster", "all")[number % 3]))
                await callers.until_counted(100)
            told = await callers.result()
            delays = [told.seconds_until_all_served(moment, _CALLERS) for moment in moments]
            assert server.running, server.stderr()
        found = await stored(url, told.acknowledged)
    result = Result(
        {
            "kills": kills,
            "acknowledged": len(told.acknowledged),
            "failed attempts": told.failures.total(),
            "acknowledged and missing": found.missing,
            "duplicates": found.duplicates,
            "longest until all callers were served again, s": max(delays),
        }
    )
    result.require(found.missing == 0, "an acknowledged order is missing")
    result.require(found.duplicates == 0, "an order was written twice")
    result.require(found.incomplete == 0, f"{found.incomplete} orders lack their item or their event")
    result.require_in_time(max(delays) <= 2, "a caller waited more than 2 s after PostgreSQL was back")
    return result


async def _kill(postgres: OwnPostgres, url: str, what: str) -> float:
    """Kill PostgreSQL or a backend of the service, and return when PostgreSQL accepts connections again."""
    if what == "backend":
        async with observing(url) as observer:
            backend = min(await eventually(observer.backends))
        await postgres.crash(backend)
    else:
        postgres.kill(backends=what == "all")
        postgres.start()
    await postgres.until_accepting(url)
    return time.monotonic()


EXPERIMENT = Experiment(
    name="postgres-kills",
    fault="PostgreSQL, its postmaster alone, or a single backend is killed (SIGKILL), 20 times in all",
    passes="no acknowledged order is lost, none is written twice; all callers are served 2 s after PostgreSQL is back",
    run=_run,
    control=_control,
    defence="`synchronous_commit`",
)
