"""Sweeps what is kept for a time only, in small batches that hold no caller up."""

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.errors import translated
from service.db.tables import request_ids
from service.db.unit_of_work import KEEP_REQUEST_IDS

BATCH = 1000


async def sweep_request_ids(engine: AsyncEngine) -> int:
    """Delete expired answers and return their number; raises StoreError."""
    key = tuple_(request_ids.c.caller, request_ids.c.method, request_ids.c.request_id)
    # SKIP LOCKED: several sweepers share the work instead of waiting for each other.
    expired = (
        select(request_ids.c.caller, request_ids.c.method, request_ids.c.request_id)
        .where(request_ids.c.create_time < func.now() - KEEP_REQUEST_IDS)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    swept = 0
    while True:
        with translated():
            async with engine.begin() as connection:
                count = (await connection.execute(delete(request_ids).where(key.in_(expired)))).rowcount
        swept += count
        if count < BATCH:
            return swept
