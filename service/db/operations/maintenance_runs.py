"""What `commerce gc` has done so far: it writes that itself, because it does not run when metrics are read."""

from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.errors import translated_errors
from service.db.tables import maintenance_runs


class MaintenanceRuns(NamedTuple):
    """The runs of one part of the maintenance.

    Attributes:
        part: which part, such as `deleted_users`.
        successes: how many succeeded.
        failures: in how many something failed.
        handled: what all have deleted or updated.
        last_success: when the last one succeeded, in seconds since 1970; 0 if none has.
    """

    part: str
    successes: int
    failures: int
    handled: int
    last_success: float


async def record_run(engine: AsyncEngine, part: str, *, succeeded: bool, handled: int) -> None:
    """Count a run of one part; raises StoreError."""
    time = func.now() if succeeded else None
    added = insert(maintenance_runs).values(
        part=part, successes=int(succeeded), failures=int(not succeeded), handled=handled, success_time=time
    )
    counts = {name: maintenance_runs.c[name] + added.excluded[name] for name in ("successes", "failures", "handled")}
    last = func.coalesce(added.excluded.success_time, maintenance_runs.c.success_time)
    with translated_errors():
        async with engine.begin() as connection:
            await connection.execute(
                added.on_conflict_do_update(index_elements=["part"], set_={**counts, "success_time": last})
            )


async def recorded_runs(engine: AsyncEngine) -> list[MaintenanceRuns]:
    """Return the runs of all parts; raises StoreError and Overloaded."""
    columns = maintenance_runs.c
    last = func.coalesce(func.extract("epoch", columns.success_time), 0)
    statement = select(columns.part, columns.successes, columns.failures, columns.handled, last.label("last_success"))
    with translated_errors():
        async with engine.connect() as connection:
            rows = (await connection.execute(statement.order_by(columns.part))).all()
    return [
        MaintenanceRuns(row.part, row.successes, row.failures, row.handled, float(row.last_success)) for row in rows
    ]
