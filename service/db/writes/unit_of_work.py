"""The unit of work: one call's transaction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, event, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, UOWTransaction
from sqlalchemy.orm.attributes import set_attribute

from service.application.ports.errors import (
    AlreadyAnswered,
    Contention,
    DatabaseUnavailable,
    DeadlineExceeded,
    NeedsTransaction,
    OutcomeUnknown,
)
from service.application.ports.unit_of_work import RequestKey, TimeLeft
from service.db.errors import translate_error, translated_errors
from service.db.tables import credit_entries, events, request_ids
from service.db.writes import mapping as mapping  # noqa: PLC0414 - maps the entities before the first session
from service.db.writes.credit import Credit
from service.db.writes.encoded_messages import MESSAGE_VERSION, MESSAGE_VERSION_SETTING, MessageEncoders
from service.db.writes.event_rows import event_row
from service.db.writes.fast_path.group_commit import GroupCommit, OrderWrite
from service.db.writes.notes import Notes
from service.db.writes.order_numbers import OrderNumbers
from service.db.writes.orders import Orders
from service.db.writes.users import Users
from service.domain.errors import DomainError, RequestIdReused
from service.domain.events import Entity, Event
from service.domain.users import User

# How a transaction begins.
#
# The statements' limit also bounds the wait for locks, and for another call's claim. The transaction's, from PostgreSQL
# 17 on, costs the connection, so it comes later, for what nothing else ends: no watcher sees an event while an older
# transaction is open.
#
# The last is for the triggers that forget messages.
_BEGIN = text(
    "SELECT set_config('statement_timeout', CAST(CAST(:statement AS int) AS text), true),"
    " CASE WHEN current_setting('server_version_num')::int >= 170000"
    " THEN set_config('transaction_timeout', CAST(CAST(:transaction AS int) AS text), true) END,"
    f" set_config('{MESSAGE_VERSION_SETTING}', '{MESSAGE_VERSION}', true)"
)
_MARGIN = 2000


class UnitOfWork:
    """Implements `service.application.ports.unit_of_work.UnitOfWork`, where the behaviour of each method is written.

    The transaction begins with the first use of a repository: with the statements' time limit and, if the call has a
    request id, its claim. A second call with the same id waits on the claim's unique key until the first has committed
    or rolled back.

    With `at_once`, a transaction that turns out to need one statement only is that statement
    (`service.db.writes.fast_path.group_commit`).
    """

    def __init__(  # noqa: PLR0913 - what it works with, and what the call says
        self,
        engine: AsyncEngine,
        lending: Callable[[], AbstractContextManager[None]],
        numbers: OrderNumbers,
        kept: MessageEncoders,
        encode_order: Callable[[UUID], Awaitable[Any]],
        writes: GroupCommit,
        *,
        actor: str,
        request: RequestKey | None,
        time_left: TimeLeft,
        at_once: bool,
    ) -> None:
        self._engine = engine
        self._lending = lending
        # None until the transaction begins.
        self._session: AsyncSession | None = None
        self._events: list[Event] = []
        self._actor = actor
        self._request = request
        self._time_left = time_left
        self._writes = writes
        self._at_once = at_once
        # A user and what it must be ACTIVE for, which is not checked yet.
        self._active: tuple[UUID, str] | None = None
        self._kept = kept
        self.users = Users(self._begin, self._collect, self._require_active, kept.user)
        self._kept_order = encode_order
        read_at_once = self._read_order if at_once else None
        self.orders = Orders(self._begin, self._collect, numbers, kept.order, read_at_once)

    @cached_property
    def notes(self) -> Notes:
        """The notes about orders."""
        return Notes(self._begin)

    @cached_property
    def credit(self) -> Credit:
        """The users' credit."""
        return Credit(self._begin)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._end(exc)
        finally:
            # Its repositories refer to it, so only a search for cycles would free them and all that they have read.
            # (CPU for ConfirmOrder: 0.96 of that with them left.)
            vars(self).clear()

    async def _end(self, exc: BaseException | None) -> None:
        try:
            if self._session:
                # Rolls back what was not committed.
                await self._session.close()
        except Exception as error:
            # Where the connection has gone, PostgreSQL has rolled back.
            if not isinstance(translate_error(error), DatabaseUnavailable):
                raise
        if isinstance(exc, DomainError) and self._has_skipped_checks():
            # What they find comes first: it may be that the first call with this request id has done all this.
            raise NeedsTransaction from exc
        if isinstance(exc, Exception) and (meaning := translate_error(exc)):
            raise meaning from exc

    def record(self, events: Iterable[Event]) -> None:
        """Add events that no entity holds."""
        self._events.extend(events)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Give a block whose writes are undone if it raises, and only these."""
        session = await self._begin()
        try:
            with translated_errors():
                async with session.begin_nested():
                    yield
                    await self.flush()
        except Exception:
            # Of what was undone.
            self._events.clear()
            self.credit.take_recorded(self._actor)
            raise

    async def flush(self) -> None:
        """Write what changed, its events and its entries, without committing."""
        if not self._has_work():
            return
        session = await self._begin()
        await self.orders.flush(session)
        await session.flush()
        if self._events:
            self._events.sort(key=lambda event: event.id)
            await session.execute(insert(events), [event_row(event, self._actor) for event in self._events])
            self._events.clear()
        if entries := self.credit.take_recorded(self._actor):
            await session.execute(insert(credit_entries), entries)

    async def commit(self, response: bytes) -> None:
        """Flush, store the response under the request id if there is one, and commit."""
        if self._is_one_statement():
            await self._commit_at_once(response)
        elif self._has_work():
            await self.flush()
            await self._commit(await self._begin(), response)

    async def _commit(self, session: AsyncSession, response: bytes) -> None:
        if self._request:
            await session.execute(update(request_ids).where(*self._is_request(self._request)).values(response=response))
        if self._time_left() <= 0:
            raise DeadlineExceeded
        try:
            await session.commit()
        except Exception as error:
            # An error that PostgreSQL reports has rolled back; a connection that broke leaves it open.
            if isinstance(translate_error(error), DatabaseUnavailable):
                raise OutcomeUnknown from error
            raise

    def _has_work(self) -> bool:
        return bool(self._session or self._active or self.orders.new or self.orders.unlocked or self._events)

    def _has_skipped_checks(self) -> bool:
        """Whether a transaction would have asked before about the request id, or about the user."""
        return self._session is None and bool(self._active or (self.orders.asked_unlocked and self._request))

    def _is_one_statement(self) -> bool:
        """Whether all there is to do is to place one order for an active user, or to write one that was not locked."""
        if self._session or self._events:
            return False
        if self.orders.unlocked:
            return not (self._active or self.orders.new)
        return self._active is not None and len(self.orders.new) == 1

    async def _commit_at_once(self, response: bytes) -> None:
        """Do all of it with one statement; raises NeedsTransaction if that cannot be, or something is in the way."""
        if self._time_left() <= 0:
            raise DeadlineExceeded
        order, old_version = self.orders.unlocked or (self.orders.new[0], 0)
        (event,) = order.take_events()
        write = OrderWrite(order, old_version, event, self._actor, self._request, response, self._kept.order(order))
        try:
            done = await self._writes.write(write)
        except Contention as error:
            raise NeedsTransaction from error
        if not done:
            raise NeedsTransaction

    async def _read_order(self, order_id: UUID) -> Any:  # noqa: ANN401 - a row
        try:
            async with asyncio.timeout(max(0, self._time_left())):
                return await self._kept_order(order_id)
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def _require_active(self, user_id: UUID, action: str) -> None:
        """Require a user to be ACTIVE until the commit: there, or if the transaction has more to do, here."""
        if self._at_once and not self._session:
            self._active = (user_id, action)
        else:
            (await self.users.get_for_share(user_id)).require_active(action)

    async def _begin(self) -> AsyncSession:
        if self.orders.unlocked:
            raise NeedsTransaction
        if self._session is None:
            milliseconds = int(self._time_left() * 1000)
            if milliseconds <= 0:
                raise DeadlineExceeded
            # Entities stay readable after the commit; what a repository loads is locked, so nothing needs a refresh.
            session = self._session = AsyncSession(self._engine, expire_on_commit=False, autoflush=False)
            event.listen(session.sync_session, "before_flush", self._collect_written)
            with self._lending():
                await session.execute(_BEGIN, {"statement": milliseconds, "transaction": milliseconds + _MARGIN})
            if self._request:
                await self._claim(session, self._request)
            if self._active:
                user_id, action = self._active
                (await self.users.get_for_share(user_id)).require_active(action)
        return self._session

    async def _claim(self, session: AsyncSession, request: RequestKey) -> None:
        claimed = await session.execute(
            pg_insert(request_ids)
            .values(
                caller=request.caller,
                method=request.method,
                request_id=request.request_id,
                body_digest=request.body_digest,
            )
            .on_conflict_do_nothing()
            .returning(request_ids.c.request_id)
        )
        if claimed.first():
            return
        columns = select(request_ids.c.body_digest, request_ids.c.response)
        answered = (await session.execute(columns.where(*self._is_request(request)))).first()
        if answered is None:
            # Swept between the two statements: free again.
            raise Contention
        if answered.body_digest != request.body_digest:
            raise RequestIdReused.at("request_id", "was used with another request body")
        raise AlreadyAnswered(answered.response)

    def _is_request(self, request: RequestKey) -> tuple[ColumnElement[bool], ...]:
        columns = request_ids.c
        return (
            columns.caller == request.caller,
            columns.method == request.method,
            columns.request_id == request.request_id,
        )

    def _collect_written(self, session: Session, _context: UOWTransaction, _instances: object) -> None:
        # Here, because after the flush the session only holds entities weakly.
        for entity in (*session.new, *session.dirty, *session.deleted):
            if isinstance(entity, Entity):
                self._collect(entity)
            if isinstance(entity, User):
                # The entity does not know that it has such a thing.
                set_attribute(entity, "message", self._kept.user(entity))

    def _collect(self, entity: Entity) -> None:
        self._events.extend(entity.take_events())
