"""What `commerce gc` and the check of the ledger have done: they write it, as they do not run when metrics are read."""

from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.errors import translated_errors
from service.db.tables import maintenance_runs

# The part that `commerce verify-ledger` records. Its runs fail when they find a difference.
LEDGER_CHECK = "ledger"


class MaintenanceRuns(NamedTuple):
    """The runs of one part of the maintenance.

    Attributes:
        part: which part, such as `deleted_users`.
        successes: how many succeeded.
        failures: in how many something failed.
        handled: what all have deleted or updated.
        last_success: when the last one succeeded, in seconds since 1970; 0 if none has.
        last_failure: when the last one failed, in seconds since 1970; 0 if none has.
    """

    part: str
    successes: int
    failures: int
    handled: int
    last_success: float
    last_failure: float


async def record_run(engine: AsyncEngine, part: str, *, succeeded: bool, handled: int) -> None:
    """Count a run of one part; raises StoreError."""
    time = func.now()
    added = insert(maintenance_runs).values(
        part=part,
        successes=int(succeeded),
        failures=int(not succeeded),
        handled=handled,
        success_time=time if succeeded else None,
        failure_time=None if succeeded else time,
    )
    counts = {name: maintenance_runs.c[name] + added.excluded[name] for name in ("successes", "failures", "handled")}
    times = {
        name: func.coalesce(added.excluded[name], maintenance_runs.c[name]) for name in ("success_time", "failure_time")
    }
    with translated_errors():
        async with engine.begin() as connection:
            await connection.execute(added.on_conflict_do_update(index_elements=["part"], set_={**counts, **times}))


async def recorded_runs(engine: AsyncEngine) -> list[MaintenanceRuns]:
    """Return the runs of all parts; raises StoreError and Overloaded."""
    columns = maintenance_runs.c
    times = [
        func.coalesce(func.extract("epoch", column), 0).label(name)
        for name, column in (("last_success", columns.success_time), ("last_failure", columns.failure_time))
    ]
    statement = select(columns.part, columns.successes, columns.failures, columns.handled, *times)
    with translated_errors():
        async with engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(columns.part))).all()
    return [
        MaintenanceRuns(
            row.part, row.successes, row.failures, row.handled, float(row.last_success), float(row.last_failure)
        )
        for row in rows
    ]
