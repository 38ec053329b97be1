"""The fast path: a unit of work that is one statement, which is a transaction by itself.

It can place one order, or change the status of one order. What a call needs beyond that raises NeedsTransaction, and
the TransactionInterceptor runs the call again in the transactional unit of work. Nothing has been written by then.

The statement checks everything that the response depends on, so its checks run when the unit of work is committed and
not when the application asks for them (ADR 16).
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from operator import attrgetter
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

from service.application.ports.errors import Contention, DeadlineExceeded, NeedsTransaction
from service.application.ports.unit_of_work import (
    Actor,
    CreditRepository,
    EncodedOrder,
    NoteRepository,
    OrderRepository,
    RequestKey,
    TimeLeft,
    UserRepository,
)
from service.db.tables import orders
from service.db.writes.encoded_messages import MessageEncoders
from service.db.writes.fast_path.encoded_orders import LoadRow, read_encoded_order
from service.db.writes.fast_path.group_commit import GroupCommit, OrderWrite
from service.db.writes.fast_path.order_statements import CHANGED, ORDER
from service.db.writes.order_numbers import OrderNumbers
from service.domain.errors import DomainError
from service.domain.events import Event
from service.domain.orders import Order

# The values of an order that the statements do not write. For a new order they are absent, and transitions leave them
# as they were read; otherwise what is stored would not be what is answered, and the call needs a transaction.
_unwritten_of_placed = attrgetter(*({column.name for column in orders.c} - {*ORDER, "items_message"}))
_unwritten_of_changed = attrgetter(*({field.name for field in fields(EncodedOrder)} - set(CHANGED)))


@dataclass(slots=True)
class _Pending:
    """What the statement will do.

    Attributes:
        customer_id: the user that must be ACTIVE, which the statement checks.
        placed: the order to place.
        reads_order: whether the call has asked for an order.
        loaded: the order that was read to change its status.
        old_version: the version at which it was read.
        unwritten: its values that the statement does not write, as they were read.
    """

    customer_id: UUID | None = None
    placed: Order | None = None
    reads_order: bool = False
    loaded: EncodedOrder | None = None
    old_version: int = 0
    unwritten: Any = None


class FastPathUnitOfWork:
    """Implements `service.application.ports.unit_of_work.UnitOfWork` for calls that can be one statement.

    Args:
        load_order: reads a row of an order, together with those that other calls ask for.
        numbers: gives order numbers.
        encoders: make the encoded message that is written with an order.
        group_commit: writes an order, in one statement with those of other calls.
        actor: who causes the event.
        request: the request id of the call, if it has one.
        time_left: how long the call may still take.
    """

    def __init__(
        self,
        load_order: LoadRow,
        numbers: OrderNumbers,
        encoders: MessageEncoders,
        group_commit: GroupCommit,
        *,
        actor: Actor,
        request: RequestKey | None,
        time_left: TimeLeft,
    ) -> None:
        self._encoders = encoders
        self._group_commit = group_commit
        self._actor = actor
        self._request = request
        self._time_left = time_left
        self._pending = pending = _Pending()
        # These have the methods that the fast path supports; any other attribute raises NeedsTransaction.
        self.users = cast("UserRepository", _FastPathUsers(pending))
        self.orders = cast("OrderRepository", _FastPathOrders(pending, load_order, numbers, time_left))

    @property
    def notes(self) -> NoteRepository:
        """Raise NeedsTransaction."""
        raise NeedsTransaction

    @property
    def credit(self) -> CreditRepository:
        """Raise NeedsTransaction."""
        raise NeedsTransaction

    async def begin(self) -> None:
        """Raise NeedsTransaction."""
        raise NeedsTransaction

    def record(self, _events: Iterable[Event]) -> None:
        """Raise NeedsTransaction."""
        raise NeedsTransaction

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Raise NeedsTransaction."""
        raise NeedsTransaction

    async def flush(self) -> None:
        """Raise NeedsTransaction."""
        raise NeedsTransaction

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, DomainError) and self._has_unchecked():
            # The outcome of these checks comes first: for example, an earlier call with this request id may be what
            # made this transition illegal, and then its stored response is the answer.
            raise NeedsTransaction from exc

    def _has_unchecked(self) -> bool:
        """Return whether a transaction would already have checked the user or the request id."""
        pending = self._pending
        return pending.customer_id is not None or (pending.reads_order and self._request is not None)

    async def commit(self, response: bytes, _subjects: Sequence[UUID] = ()) -> None:
        """Run the statement. The response is about the order that it writes.

        Raises:
            NeedsTransaction: this needs more than one statement, or a check failed, a row was locked, or the order was
                changed since it was read; nothing was written.
            DeadlineExceeded: the call has no time left; nothing was written.
            OutcomeUnknown: the connection was lost after the statement was sent, so the write may have happened.
        """
        order = self._order_to_write()
        if self._time_left() <= 0:
            raise DeadlineExceeded
        (event,) = order.take_events()
        write = OrderWrite(
            order,
            self._pending.old_version,
            event,
            self._actor,
            self._request,
            response,
            self._encoders.order(order),
            self._time_left,
        )
        try:
            written = await self._group_commit.write(write)
        except Contention as error:
            raise NeedsTransaction from error
        if not written:
            raise NeedsTransaction

    def _order_to_write(self) -> Order | EncodedOrder:
        pending = self._pending
        if pending.loaded and not (pending.placed or pending.customer_id):
            order: Order | EncodedOrder = pending.loaded
            is_whole = _unwritten_of_changed(order) == pending.unwritten
        elif pending.placed and not pending.loaded and pending.placed.user_id == pending.customer_id:
            order = pending.placed
            is_whole = not (any(_unwritten_of_placed(order)) or order.tags)
        else:
            raise NeedsTransaction
        if not is_whole:
            raise NeedsTransaction
        return order


class _PartialRepository:
    """A repository that only has the methods that the fast path supports."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it never returns
        raise NeedsTransaction


class _FastPathUsers(_PartialRepository):
    def __init__(self, pending: _Pending) -> None:
        self._pending = pending

    async def require_active(self, user_id: UUID, _action: str) -> None:
        """Let the statement check that the user is ACTIVE."""
        if self._pending.customer_id is not None:
            raise NeedsTransaction
        self._pending.customer_id = user_id


class _FastPathOrders(_PartialRepository):
    def __init__(self, pending: _Pending, load: LoadRow, numbers: OrderNumbers, time_left: TimeLeft) -> None:
        self._pending = pending
        self._load = load
        self._numbers = numbers
        self._time_left = time_left

    async def next_number(self) -> str:
        """Return an unused order number."""
        return await self._numbers.next()

    async def add(self, order: Order) -> None:
        """Let the statement place the order."""
        if self._pending.placed:
            raise NeedsTransaction
        self._pending.placed = order

    async def get_for_transition(self, order_id: UUID) -> EncodedOrder:
        """Return the order without a lock; the statement writes it only if it still has this version."""
        if self._pending.reads_order:
            raise NeedsTransaction
        self._pending.reads_order = True
        order = await read_encoded_order(self._load, order_id, self._time_left())
        self._pending.loaded, self._pending.old_version = order, order.version
        self._pending.unwritten = _unwritten_of_changed(order)
        return order
