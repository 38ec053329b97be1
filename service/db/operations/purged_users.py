"""Which users were purged, by their events: all that a purge leaves behind."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.connections.engine import for_single_statements
from service.db.errors import translated_errors
from service.db.operations import migrate
from service.db.tables import events


class PurgedUser(NamedTuple):
    """A user that was purged."""

    id: UUID
    purge_time: datetime


_PURGES = (
    select(events.c.aggregate_id, events.c.create_time)
    .where(events.c.aggregate_type == "user", events.c.type == "PURGED")
    .order_by(events.c.position)
)


async def purged_users(engine: AsyncEngine) -> Sequence[PurgedUser]:
    """Return the users whose purge is among the stored events, in order, also if the database accepts no writes.

    Raises:
        MigrationError: the schema is older than this build.
        StoreError: the database failed.
    """
    with translated_errors():
        async with for_single_statements(engine).connect() as connection:
            if problem := migrate.schema_problem(await migrate.current(connection)):
                raise migrate.MigrationError(problem)
            return [PurgedUser(*row) for row in await connection.execute(_PURGES)]
