"""A disk of PostgreSQL that is full."""

import asyncio
import time
from contextlib import suppress

import asyncpg

from service.db.tables import metadata
from tests.faults.apart import apart
from tests.faults.callers import create_users, stored
from tests.faults.experiment import Experiment, NotPossible, Plan, Result
from tests.faults.placing_orders import place_orders
from tests.support.databases import driver_connection
from tests.support.own_postgres import OwnPostgres, own_postgres
from tests.support.processes import serving
from tests.support.small_disks import SmallDisk, small_disk

_CALLERS = 8
_MEGABYTES = 200
_FULL_SECONDS = 3.0
_BACK_SECONDS = 5.0
# Little, so that a log that grows soon needs space.
_SETTINGS = {"max_wal_size": "32MB", "min_wal_size": "32MB", "shared_buffers": "16MB"}


async def _run(plan: Plan) -> Result:
    return await _fill_disk(plan, plan.size(full=6, smoke=1))


async def _control(plan: Plan) -> Result:
    return await _fill_disk(plan, 2, logged=False)


async def _fill_disk(plan: Plan, times: int, *, logged: bool = True) -> Result:
    moments: list[float] = []
    restarts = 0
    with small_disk(plan.folder / "disk", _MEGABYTES) as disk:
        if disk is None:
            raise NotPossible("a small file system can be mounted only by root, and not in every container")
        with own_postgres(disk.folder / "postgres", _SETTINGS) as postgres:
            url = await postgres.migrated_database()
            users = await create_users(url, _CALLERS)
            if not logged:
                await _stop_logging(url)
            async with serving(url) as server, apart(place_orders, await server.port(), users, plan.seed) as callers:
                for number in range(times):
                    await callers.until_counted(50)
                    await _while_full(disk, postgres, url, log_too=number % 2 == 0)
                    disk.free()
                    moments.append(time.monotonic())
                    restarts += await _restarts_until_back(postgres, url)
                    await callers.until_counted(50)
                told = await callers.result()
                assert server.running, server.stderr()
                errors = [line for line in server.stderr().splitlines() if '"level":"error"' in line]
            found = await stored(url, told.acknowledged)
    back = max(told.seconds_until_all_served(moment, _CALLERS) for moment in moments)
    result = Result(
        {
            "times that the disk was full": times,
            "restarts of PostgreSQL": restarts,
            "acknowledged": len(told.acknowledged),
            "failed attempts": told.failures.total(),
            "acknowledged and missing": found.missing,
            "duplicates": found.duplicates,
            "longest until all callers were served again, s": back,
        }
    )
    result.figures |= {f"failed with {reason}": count for reason, count in told.failures.items()}
    result.require(told.failures.total() > 0, "the disk was not full")
    result.require(found.missing == 0, "an acknowledged order is missing")
    result.require(found.duplicates == 0, "an order was written twice")
    result.require(not errors, f"the server logged errors: {errors[:1]}")
    result.require_in_time(back <= _BACK_SECONDS, "a caller waited more than 5 s after there was space again")
    return result


async def _stop_logging(url: str) -> None:
    """Leave orders, and the tables that refer to them, out of the write-ahead log."""
    tables = [table.name for table in reversed(metadata.sorted_tables)]
    async with driver_connection(url) as connection:
        for name in tables[: tables.index("orders") + 1]:
            await connection.execute(f"ALTER TABLE {name} SET UNLOGGED")


async def _while_full(disk: SmallDisk, postgres: OwnPostgres, url: str, *, log_too: bool) -> None:
    """Keep the disk full for some seconds; with `log_too` until PostgreSQL cannot continue its log, either."""
    deadline = time.monotonic() + _FULL_SECONDS
    while time.monotonic() < deadline:
        disk.fill()
        if log_too and postgres.running:
            try:
                async with driver_connection(url) as connection:
                    # Each needs another file of the log; those that are ready for use are used up.
                    for _ in range(4):
                        await connection.execute("SELECT pg_logical_emit_message(false, 'fill', 'x'), pg_switch_wal()")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                # As soon as there is no space for one, PostgreSQL ends all connections, and recovers.
                log_too = False
        await asyncio.sleep(0.2)


async def _restarts_until_back(postgres: OwnPostgres, url: str) -> int:
    """Start PostgreSQL again, as an orchestrator does, whenever it has ended because it could not recover."""
    restarts = 0
    while True:
        if not postgres.running:
            postgres.start_again()
            restarts += 1
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with driver_connection(url):
                return restarts
        await asyncio.sleep(0.05)


EXPERIMENT = Experiment(
    name="full-disk",
    fault="the disk of PostgreSQL is full for 3 s, every other time also for its log, so that it crashes",
    passes="no acknowledged order is lost, none is written twice; all callers are served 5 s after there is space",
    run=_run,
    control=_control,
    defence="the write-ahead log",
)
