"""The `Database`: the connections, units of work and queries that a process uses."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import structlog
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import Overloaded, StoreError
from service.application.ports.sign_in_attempts import SignInAttempts
from service.application.ports.unit_of_work import Actor, RequestKey, TimeLeft, UnitOfWork
from service.config import DatabaseSettings
from service.db.connections.engine import create_engine, lost_connections
from service.db.connections.measured import MeasuredEngine
from service.db.connections.replica import Replica
from service.db.connections.slots import Slots
from service.db.connections.warm_up import warm_up
from service.db.errors import translated_errors
from service.db.operations.maintenance_runs import MaintenanceRuns, recorded_runs
from service.db.operations.readiness import describe_store_error, readiness_problem
from service.db.reads.credit import CreditQueries
from service.db.reads.maintenance import MaintenanceQueries
from service.db.reads.notes import NoteQueries
from service.db.reads.orders import OrderQueries
from service.db.reads.owners import OwnerQueries
from service.db.reads.reader import Reader
from service.db.reads.users import UserQueries
from service.db.tables import signing_keys
from service.db.writes.encoded_messages import NO_ENCODED_MESSAGES, MessageEncoders
from service.db.writes.fast_path.encoded_orders import ENCODED_ORDERS_BY_IDS
from service.db.writes.fast_path.group_commit import GroupCommit
from service.db.writes.fast_path.unit_of_work import FastPathUnitOfWork
from service.db.writes.order_numbers import OrderNumbers
from service.db.writes.sign_in_attempts import CountedSignInAttempts
from service.db.writes.transaction import TransactionPool
from service.db.writes.unit_of_work import TransactionalUnitOfWork
from service.observability.logs import where_raised
from service.observability.metrics.statements import Statements
from service.runtime.deadline import no_deadline

# How long the readiness probe waits for the answer to each of its statements. A connection of the probe that is lost is
# no more than two failed probes, so it does not take a server out of service (`service.rpc.health`).
PROBE_ANSWER_SECONDS = 1.5

log = structlog.get_logger()


class Database:
    """The write side (`unit_of_work`, `fast_path`) and the read side (`…_queries`) of one database.

    Args:
        settings: how to reach the database.
        encoders: make the encoded messages that are written with users and orders; None writes none.
        replica: a replica to read from; it is closed with the database.
        prefers_replica: returns whether the running call prefers the replica for its reads.
        time_left: returns how long the running call may still take.
        batched_reads: whether concurrent reads by id share a statement.
        hold_connection: whether one connection is held between single statements.
        statements: counts statements, batches and connections, for metrics; None counts none.

    Attributes:
        replica: as above.
        measured: counts the connections of the pool; None without `statements`.
    """

    def __init__(  # noqa: PLR0913 - parts, and one switch for each addition
        self,
        settings: DatabaseSettings,
        encoders: MessageEncoders | None,
        replica: Replica | None = None,
        *,
        prefers_replica: Callable[[], bool] = lambda: False,
        time_left: Callable[[], TimeLeft] = lambda: no_deadline,
        batched_reads: bool = True,
        hold_connection: bool = True,
        statements: Statements | None = None,
    ) -> None:
        self.engine = create_engine(settings)
        self.measured = None if statements is None else MeasuredEngine(self.engine, statements)
        # The probe has its own pool. If it waited for calls, a busy pool would look like a lost database.
        self._probe_engine = create_engine(settings, pool_size=1, answer_seconds=PROBE_ANSWER_SECONDS)
        self.replica = replica
        reader = self._reader = Reader(
            self.engine,
            replica,
            prefers_replica=prefers_replica,
            time_left=time_left,
            batched_reads=batched_reads,
            hold_connection=hold_connection,
            settings=settings,
            statements=statements,
        )
        self._transaction_pool = TransactionPool(self.engine, reader.executor)
        self._numbers = OrderNumbers(reader)
        self._encoders = encoders or NO_ENCODED_MESSAGES
        self._load_encoded_order = reader.batched_loader(ENCODED_ORDERS_BY_IDS, "ids")
        self._group_commit = GroupCommit(reader.executor, reader.shielded_tasks)
        self.user_queries = UserQueries(reader)
        self.order_queries = OrderQueries(reader)
        self.note_queries = NoteQueries(reader)
        self.credit_queries = CreditQueries(reader)
        self.owner_queries = OwnerQueries(reader)
        self.maintenance_queries = MaintenanceQueries(reader)
        # Only at level debug, because pool events are frequent and formatting them takes time.
        if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
            _log_pool_events(self.engine)

    def unit_of_work(
        self, *, actor: str, on_behalf_of: UUID | None = None, request: RequestKey | None, time_left: TimeLeft
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """Return a transactional unit of work (`service.application.ports.unit_of_work.UnitOfWorkFactory`)."""
        return TransactionalUnitOfWork(
            self._transaction_pool,
            self._numbers,
            self._encoders,
            actor=Actor(actor, on_behalf_of),
            request=request,
            time_left=time_left,
        )

    def fast_path(
        self, *, actor: str, on_behalf_of: UUID | None = None, request: RequestKey | None, time_left: TimeLeft
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """Return a unit of work that runs as one statement; it raises NeedsTransaction if it cannot do the work."""
        return FastPathUnitOfWork(
            self._load_encoded_order,
            self._numbers,
            self._encoders,
            self._group_commit,
            actor=Actor(actor, on_behalf_of),
            request=request,
            time_left=time_left,
        )

    @property
    def pools(self) -> Mapping[str, Slots]:
        """Who shares the connections of the pool, by name, and all of them together, which are `calls`."""
        expensive = self._reader.expensive_reads
        shares = {kind.name.lower(): slots for kind, slots in expensive.shares.items()} if expensive else {}
        return {"calls": self._reader.executor.slots, "transactions": self._transaction_pool.share, **shares}

    @property
    def address(self) -> str:
        """Host and port of the database, for the log."""
        return lost_connections(self.engine).address

    async def warm_up(self, count: int) -> None:
        """Open connections, at most as many as the pool has, before the first call; logs if fewer can be opened."""
        if failures := await warm_up(self.engine, count):
            error = failures[0]
            problem = describe_store_error(error, self.address) if isinstance(error, StoreError) else None
            log.warning(
                "opened fewer connections than COMMERCE_DB_POOL_MIN_SIZE",
                wanted=count,
                opened=count - len(failures),
                problem=problem,
                **where_raised(error),
            )

    async def problem(self) -> str | None:
        """Return what is wrong with the database, as one line for an operator; None if it is ready."""
        return await readiness_problem(self._probe_engine)

    async def lasting_problem(self) -> str | None:
        """Like `problem`, but None while the database only has no connection to spare: calls use those it has."""
        try:
            return await self.problem()
        except Overloaded:
            return None

    async def maintenance_runs(self) -> Sequence[MaintenanceRuns]:
        """Return what `commerce gc` has done; raises StoreError and Overloaded."""
        # Not of the pool of calls, which must not wait for it.
        return await recorded_runs(self._probe_engine)

    async def signing_key(self) -> bytes | None:
        """Return the signing key that all processes on this database share, if it is there; raises StoreError."""
        with translated_errors():
            async with self.engine.connect() as connection:
                key: bytes | None = await connection.scalar(select(signing_keys.c.key))
        return key

    def sign_in_attempts(self, key: bytes, delays: Sequence[float]) -> SignInAttempts:
        """Return the counter of attempts to sign in (`CountedSignInAttempts` documents the arguments)."""
        return CountedSignInAttempts(self._reader, key, delays)

    async def close(self, time_left: TimeLeft = no_deadline) -> None:
        """Wait until no read is running, or cancel it when no time is left; then close all connections."""
        await self._reader.drain(time_left)
        if self.replica:
            await self.replica.close()
        await self.engine.dispose()
        await self._probe_engine.dispose()


def _log_pool_events(engine: AsyncEngine) -> None:
    for name in ("connect", "checkout", "checkin", "invalidate", "close"):

        def log_event(*_arguments: object, name: str = name) -> None:
            log.debug("pool", event_name=name, status=engine.pool.status())

        event.listen(engine.sync_engine, name, log_event)
