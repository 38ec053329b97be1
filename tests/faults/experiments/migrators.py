"""Several processes that migrate the schema at the same time, while servers serve."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.db.operations.migrate import head
from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.scheduling import longest_delay
from tests.faults.traffic import make_calls
from tests.support.databases import driver_connection
from tests.support.paths import ROOT
from tests.support.processes import COMMAND, CommandResult, running_command, serving

_CALLERS = 4
# Between the calls of a caller, so that the processors have time for the migrators.
_PAUSE_SECONDS = 0.01
_MIGRATORS = 4
_STALL_SECONDS = 0.3
# Migrators run elsewhere, where they are not given the processors that the server needs: what is measured are locks.
_ELSEWHERE = ("nice", "-n", "19", *COMMAND)
# They take long where the server leaves them little time.
_PATIENCE_SECONDS = 120
# Others always read, in a transaction of this length, what the migrations change.
_READ_SECONDS = 0.7
_MIGRATION = '''"""A migration of an experiment."""

from alembic import op

revision = "{revision}"
down_revision = "{previous}"
branch_labels = depends_on = None


def upgrade() -> None:
    """Add a column, and an index without blocking writers; each step can be repeated."""
    op.execute("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} integer")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS {column}")
        op.execute("CREATE INDEX CONCURRENTLY {column} ON {table} ({column})")


def downgrade() -> None:
    """Undo the upgrade."""
    op.execute("ALTER TABLE {table} DROP COLUMN {column}")
'''


async def _run(plan: Plan) -> Result:
    return await _migrate(plan, plan.size(full=20, smoke=1), _tree(plan.folder))


async def _control(plan: Plan) -> Result:
    tree = _tree(plan.folder)
    environment = tree / "migrations" / "env.py"
    text = environment.read_text()
    changed = text.replace("SET lock_timeout = '100ms'", "SET lock_timeout = 0")
    assert changed != text
    environment.write_text(changed)
    return await _migrate(plan, 3, tree)


def _tree(folder: Path) -> Path:
    """Copy the service, so that migrations can be added to the copy: a build that is newer than the one that serves."""
    for name in ("service", "migrations"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "client").symlink_to(ROOT / "client")
    return folder


async def _migrate(plan: Plan, times: int, tree: Path) -> Result:
    results: list[CommandResult] = []
    previous = head()
    async with plan.database() as url:
        users = await create_users(url, _CALLERS)
        async with (
            serving(url) as server,
            apart(make_calls, await server.port(), users, plan.seed, pause=_PAUSE_SECONDS) as callers,
            apart(longest_delay) as machine,
            _reading(url),
        ):
            await callers.until_counted(100)
            for number in range(times):
                revision, column = f"{9000 + number}", f"trial_{number}"
                table = ("orders", "users")[number % 2]
                text = _MIGRATION.format(revision=revision, previous=previous, table=table, column=column)
                (tree / "migrations" / "versions" / f"{revision}_{column}.py").write_text(text)
                previous = revision
                results += await asyncio.gather(*(_migrate_once(url, tree) for _ in range(_MIGRATORS)))
            seen = await callers.result()
            delay = await machine.result()
        async with driver_connection(url) as connection:
            reached = await connection.fetchval("SELECT version_num FROM alembic_version")
            invalid = await connection.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
    failed = [result for result in results if result.status]
    result = Result(
        {
            "migrators": len(results),
            "failed migrators": len(failed),
            "calls": seen.calls,
            "failed calls": seen.failures.total(),
            "longest stall, ms": 1000 * seen.longest,
            "of the machine itself, ms": 1000 * delay,
        }
    )
    result.require(not failed, f"migrators failed: {[one.stderr[-300:] for one in failed[:1]]}")
    result.require(reached == previous, f"the schema is at {reached}")
    result.require(invalid == 0, f"{invalid} indexes are invalid")
    result.require(not seen.failures, f"calls failed: {dict(seen.failures)}")
    result.require_in_time(seen.longest <= _STALL_SECONDS, "a call took more than 300 ms")
    return result


async def _migrate_once(url: str, tree: Path) -> CommandResult:
    async with running_command("migrate", database_url=url, tree=tree, program=_ELSEWHERE) as migrator:
        return await migrator.end(_PATIENCE_SECONDS)


@asynccontextmanager
async def _reading(url: str) -> AsyncIterator[None]:
    """Read orders and users in long transactions until the block ends."""

    async def read() -> None:
        async with driver_connection(url) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute("SELECT FROM orders, users LIMIT 1")
                    await asyncio.sleep(_READ_SECONDS)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        assert not reading.done(), reading
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


EXPERIMENT = Experiment(
    name="migrators",
    fault="4 processes run the same migration at the same time, 20 times, beside callers and long readers",
    passes="every migrator succeeds; no call fails or takes more than 300 ms",
    run=_run,
    control=_control,
    defence="`lock_timeout`",
)
