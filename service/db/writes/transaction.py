"""One PostgreSQL transaction, begun by its first use."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from service.application.ports.errors import DatabaseUnavailable, DeadlineExceeded, OutcomeUnknown
from service.application.ports.unit_of_work import RequestKey, TimeLeft
from service.db.connections.engine import lost_connections
from service.db.connections.executor import StatementExecutor
from service.db.connections.measured import STATEMENT_NAME
from service.db.connections.slots import Slots
from service.db.errors import translate_error
from service.db.text_search import SEARCH_VERSION, SEARCH_VERSION_SETTING
from service.db.writes.encoded_messages import MESSAGE_VERSION, MESSAGE_VERSION_SETTING
from service.db.writes.recorded_events import RecordedEvents
from service.db.writes.request_ids import claim, store_response

# The first statement of every transaction sets its limits.
#
# `statement_timeout` is the time that the call has left. It also bounds the wait for locks and for the claim of another
# call. `transaction_timeout` (PostgreSQL 17 and later) ends the connection, so it is two seconds longer, as a last
# resort: watchers see no event while an older transaction is open.
#
# The last settings tell the triggers invalidate_… and …_search that this transaction writes encoded messages and the
# words for searches itself.
_BEGIN = text(
    "SELECT set_config('statement_timeout', CAST(CAST(:statement AS int) AS text), true),"
    " CASE WHEN current_setting('server_version_num')::int >= 170000"
    " THEN set_config('transaction_timeout', CAST(CAST(:transaction AS int) AS text), true) END,"
    f" set_config('{MESSAGE_VERSION_SETTING}', '{MESSAGE_VERSION}', true),"
    f" set_config('{SEARCH_VERSION_SETTING}', '{SEARCH_VERSION}', true)"
).execution_options(**{STATEMENT_NAME: "begin"})
_TRANSACTION_TIMEOUT_MARGIN_MS = 2000
# PostgreSQL ends a statement at the deadline, so a connection on which the transaction has not ended this long after it
# is lost.
_ANSWER_MARGIN_SECONDS = 1.0


class TransactionPool:
    """Connections for transactions: a share of those of a pool.

    The rest is left to single statements. So transactions that wait for each other's locks do not stop what needs none
    of these, and a transaction that needs a single statement, such as for an order number, does not wait for itself.

    Args:
        engine: the owner of the pool.
        executor: runs single statements on the same pool.

    Attributes:
        share: the connections that transactions may use.
        begun: the transactions that have a connection, or wait for it to open.
    """

    def __init__(self, engine: AsyncEngine, executor: StatementExecutor) -> None:
        self.engine = engine
        self.lend = executor.lend
        self.statements = executor.statements
        self._connections = executor.slots
        self.share = Slots(_share(executor.slots.size), executor.slots.timeout)
        self.begun: set[LazyTransaction] = set()

    async def take(self, time_left: TimeLeft) -> None:
        """Take the slots for a connection, and `give_back` them later; raises DeadlineExceeded and Overloaded."""
        await self.share.take(time_left)
        try:
            await self._connections.take(time_left)
        except BaseException:
            self.share.give_back()
            raise

    def give_back(self) -> None:
        """Let others have the slots."""
        self._connections.give_back()
        self.share.give_back()


def _share(connections: int) -> int:
    return max(1, connections - max(1, connections // 5))


class LazyTransaction:
    """The transaction of one unit of work.

    Args:
        pool: where to take a connection from.
        events: collects the events of entities when the session is flushed.
        request: the request id to claim, if the call has one.
        time_left: how long the call may still take.

    Attributes:
        task: the task in which it has begun; None before that and after its end.
        began: when it has, on the monotonic clock.
    """

    def __init__(
        self,
        pool: TransactionPool,
        events: RecordedEvents,
        *,
        request: RequestKey | None,
        time_left: TimeLeft,
    ) -> None:
        self._pool = pool
        self._events = events
        self._request = request
        self._time_left = time_left
        self._session: AsyncSession | None = None
        self._connection: AsyncConnection | None = None
        self._has_slots = False
        self._giving_up: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[Any] | None = None
        self.began = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether the transaction has begun."""
        return self._session is not None

    async def session(self) -> AsyncSession:
        """Return the session; the first call begins the transaction and claims the request id.

        Raises:
            DeadlineExceeded: the call has no time left, or had none left when there was a connection for it.
            Overloaded: no connection was free in time.
            AlreadyAnswered, RequestIdReused, Contention: see `service.db.writes.request_ids.claim`.
        """
        return self._session or await self._begin()

    async def _begin(self) -> AsyncSession:
        self._require_time()
        await self._pool.take(self._time_left)
        self._has_slots = True
        self._pool.begun.add(self)
        self.task, self.began = asyncio.current_task(), time.monotonic()
        # Entities stay readable after the commit. A repository locks what it loads, so nothing needs a refresh.
        session = self._session = AsyncSession(self._pool.engine, expire_on_commit=False, autoflush=False)
        event.listen(session.sync_session, "before_flush", self._events.collect_from_session)
        with self._pool.lend():
            connection = self._connection = await session.connection()
        # Only now: to wait for a connection, or for a new one to open, takes from the time of the call.
        milliseconds = self._require_time()
        limits = {"statement": milliseconds, "transaction": milliseconds + _TRANSACTION_TIMEOUT_MARGIN_MS}
        self._giving_up = asyncio.get_running_loop().call_later(
            milliseconds / 1000 + _ANSWER_MARGIN_SECONDS,
            lost_connections(self._pool.engine).close,
            connection.sync_connection.connection.driver_connection,  # type: ignore[union-attr] # it is connected
            "it did not answer by the deadline of a call",
        )
        await session.execute(_BEGIN, limits)
        if self._request:
            await claim(session, self._request)
        return session

    def _require_time(self) -> int:
        """Return the milliseconds that the call has left; raises DeadlineExceeded if there are none."""
        milliseconds = int(self._time_left() * 1000)
        if milliseconds <= 0:
            raise DeadlineExceeded
        return milliseconds

    async def commit(self, response: bytes, subjects: Sequence[UUID]) -> None:
        """Store the response under the request id, with the ids of what it is about, and commit.

        Raises:
            DeadlineExceeded: the call has no time left; nothing was written.
            OutcomeUnknown: the connection was lost during COMMIT, so the write may have happened.
        """
        session = await self.session()
        if self._request:
            await store_response(session, self._request, response, subjects)
        if self._time_left() <= 0:
            raise DeadlineExceeded
        began = time.perf_counter()
        rows: int | None = None
        try:
            await session.commit()
            rows = 0
        except Exception as error:
            # PostgreSQL has rolled back if it reports an error. An error that means a lost connection leaves the
            # outcome open, even if it has an SQLSTATE: PgBouncer may have reported it.
            if isinstance(translate_error(error), DatabaseUnavailable):
                raise OutcomeUnknown from error
            raise
        finally:
            if self._pool.statements is not None:
                self._pool.statements.observe("commit", time.perf_counter() - began, rows)

    async def close(self) -> None:
        """Roll back what was not committed, and give the connection back to the pool."""
        try:
            if self._session:
                await self._session.close()
        except Exception as error:
            # PostgreSQL rolls back the transaction of a connection that is closed. Without this, it would stay open:
            # SQLAlchemy does not give back a connection whose ROLLBACK fails.
            if self._connection:
                await self._connection.invalidate()
                await self._connection.close()
            # Also DeadlineExceeded: PostgreSQL cancels a ROLLBACK, too, that takes longer than the call has left.
            if translate_error(error) is None:
                raise
        finally:
            if self._giving_up:
                self._giving_up.cancel()
            if self._has_slots:
                self._has_slots = False
                self._pool.give_back()
                self._pool.begun.discard(self)
                # It refers to this.
                self.task = None
