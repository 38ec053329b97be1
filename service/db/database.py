"""Everything of the database that the rest of a process uses, on one pool."""

import logging
from contextlib import AbstractAsyncContextManager

import structlog
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.unit_of_work import RequestKey, TimeLeft
from service.application.ports.unit_of_work import UnitOfWork as UnitOfWorkPort
from service.config import DatabaseSettings
from service.db.connections.engine import create_engine
from service.db.connections.replica import Replica
from service.db.errors import translated_errors
from service.db.operations.readiness import readiness_problem
from service.db.reads.credit import CreditQueries
from service.db.reads.maintenance import MaintenanceQueries
from service.db.reads.notes import NoteQueries
from service.db.reads.orders import OrderQueries
from service.db.reads.reader import Reader
from service.db.reads.users import UserQueries
from service.db.tables import signing_keys
from service.db.writes.encoded_messages import MessageEncoders
from service.db.writes.fast_path.group_commit import GroupCommit
from service.db.writes.order_numbers import OrderNumbers
from service.db.writes.orders import ENCODED_ORDERS_BY_ID
from service.db.writes.unit_of_work import UnitOfWork

log = structlog.get_logger()


class Database:
    """The write side (`unit_of_work`) and the read side (`…_queries`) of one database.

    Args:
        settings: how to reach it.
        encoders: encode the messages that are stored in rows; None to store no messages.
        replica: a replica of it, which is closed with it.
        fast_path: whether a unit of work that can be one statement is one.
        batched_reads: whether concurrent reads by id share a statement.
        hold_connection: whether one connection is held between single statements.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        encoders: MessageEncoders | None,
        replica: Replica | None = None,
        *,
        fast_path: bool = True,
        batched_reads: bool = True,
        hold_connection: bool = True,
    ) -> None:
        if encoders is None:
            raise NotImplementedError("rows without encoded messages are not written yet")
        self.engine = create_engine(settings)
        # Apart, so that a busy pool does not look like a lost database.
        self._probe_engine = create_engine(settings, pool_size=1)
        self._replica = replica
        reader = self._reader = Reader(
            self.engine, replica, hold_connection=hold_connection, batched_reads=batched_reads
        )
        self._numbers = OrderNumbers(reader)
        self._fast_path = fast_path
        self._kept = encoders
        self._kept_order = reader.batched_loader(ENCODED_ORDERS_BY_ID, "ids")
        self._order_writes = GroupCommit(reader.executor, reader.shielded_tasks)
        self.user_queries = UserQueries(reader)
        self.order_queries = OrderQueries(reader)
        self.note_queries = NoteQueries(reader)
        self.credit_queries = CreditQueries(reader)
        self.maintenance_queries = MaintenanceQueries(reader)
        # Their lines are many, and not free to make.
        if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
            _log_pool_events(self.engine)

    def unit_of_work(
        self, *, actor: str, request: RequestKey | None, time_left: TimeLeft, at_once: bool = False
    ) -> AbstractAsyncContextManager[UnitOfWorkPort]:
        """Return a unit of work, as `service.application.ports.unit_of_work.UnitOfWorkFactory` says."""
        return UnitOfWork(
            self.engine,
            self._reader.executor.lending,
            self._numbers,
            self._kept,
            self._kept_order,
            self._order_writes,
            actor=actor,
            request=request,
            time_left=time_left,
            at_once=at_once and self._fast_path,
        )

    async def problem(self) -> str | None:
        """Return what is wrong with the database, in words for an operator, or None."""
        return await readiness_problem(self._probe_engine)

    async def signing_key(self) -> bytes:
        """Return the key that all processes on this database share; raises StoreError."""
        with translated_errors():
            async with self.engine.connect() as connection:
                key: bytes = (await connection.scalars(select(signing_keys.c.key))).one()
        return key

    async def close(self) -> None:
        """Close all connections, when nothing runs on them any more."""
        await self._reader.drain()
        if self._replica:
            await self._replica.close()
        await self.engine.dispose()
        await self._probe_engine.dispose()


def _log_pool_events(engine: AsyncEngine) -> None:
    for name in ("connect", "checkout", "checkin", "invalidate", "close"):

        def log_event(*_arguments: object, name: str = name) -> None:
            log.debug("pool", event_name=name, status=engine.pool.status())

        event.listen(engine.sync_engine, name, log_event)
