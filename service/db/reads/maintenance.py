"""The read side of maintenance; `service.application.ports.queries.MaintenanceQueries` documents each method."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from service.db.connections.reader import StatementReader
from service.db.tables import orders, users
from service.domain.orders import CreditState
from service.domain.users import UserState


class MaintenanceQueries:
    """Implements `service.application.ports.queries.MaintenanceQueries`."""

    def __init__(self, reader: StatementReader) -> None:
        self._reader = reader

    async def orders_with_expired_holds(self, now: datetime) -> Sequence[UUID]:
        """Return the ids of orders whose credit hold has expired."""
        held = orders.c.credit_state == CreditState.HELD
        rows = await self._reader.all(select(orders.c.id).where(held, orders.c.credit_expire_time <= now))
        return [row.id for row in rows]

    async def users_to_purge(self, now: datetime) -> Sequence[UUID]:
        """Return the ids of deleted users that can no longer be undeleted."""
        deleted = users.c.state == UserState.DELETED
        rows = await self._reader.all(select(users.c.id).where(deleted, users.c.purge_time <= now))
        return [row.id for row in rows]
