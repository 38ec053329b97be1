"""The write side: the unit of work and its repositories."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from service.domain.credit import CreditAccount, Transaction
from service.domain.events import Event
from service.domain.notes import OrderNote
from service.domain.orders import Order, OrderHeader, OrderStatus
from service.domain.tags import Tag
from service.domain.users import User


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What makes two calls one (AIP-155): who called what under which id, and a digest of the body."""

    caller: str
    method: str
    request_id: UUID
    body_digest: bytes


class UserRepository(Protocol):
    """Users that this unit of work changes."""

    async def add(self, user: User, password_hash: str) -> None:
        """Keep a new user; UserAlreadyExists comes with the flush."""

    async def get_for_update(self, user_id: UUID) -> User:
        """Return the user, locked against other changes; raises UserNotFound."""

    async def get_for_share(self, user_id: UUID) -> User:
        """Return the user, locked so that it stays as it is; raises UserNotFound."""

    async def require_active(self, user_id: UUID, action: str) -> None:
        """Require the user to be ACTIVE until the commit; raises UserNotFound and UserNotActive, here or there.

        `action` says what for, for example `place orders`.
        """

    async def has_open_orders_or_credit(self, user_id: UUID) -> bool:
        """Return whether there is something that a purge needs `force` for."""

    async def purge(self, user: User) -> int:
        """Erase the user and everything that is its own, and return the number of its orders."""

    async def ids_by_email(self, emails: Sequence[str]) -> Mapping[str, UUID]:
        """Return the ids of the users that have one of these e-mails, by their e-mail in lower case."""

    async def by_email_for_update(self, emails: Sequence[str]) -> Mapping[str, User]:
        """Return the users likewise, locked against other changes."""

    async def add_all(self, users: Sequence[User], password_hashes: Mapping[UUID, str]) -> None:
        """Keep new users, of which some have a password, all at once.

        Raises:
            UserAlreadyExists: with a username of one of them.
            Contention: a user with an e-mail of one of them came meanwhile.
        """

    async def set_password_hash(self, user_id: UUID, password_hash: str, now: datetime) -> None:
        """Give a user that exists this hash, whether it had one or not."""

    async def replace_password_hash(self, user_id: UUID, old: str, new: str, now: datetime) -> None:
        """Replace the hash, unless it is no longer `old`."""

    async def encode_missing(self, limit: int) -> int:
        """Store encoded messages of up to `limit` users that have none; returns the number of users updated."""


@dataclass(eq=False, kw_only=True)
class EncodedOrder(OrderHeader):
    """An order that no credit pays for, and what is in it only as the API sends it: `message`, as it was read."""

    message: bytes


class OrderRepository(Protocol):
    """Orders that this unit of work changes."""

    async def next_number(self) -> str:
        """Return an order number that no order has or will have."""

    async def add(self, order: Order) -> None:
        """Add a new order; raises OrderAlreadyExists, here or when the unit of work is flushed or committed."""

    async def get_for_update(self, order_id: UUID) -> Order:
        """Return the order with its items and tags, locked against other changes; raises OrderNotFound."""

    async def get_for_transition(self, order_id: UUID) -> Order | EncodedOrder:
        """Return the order, to change it by one of its verbs and by nothing else; raises OrderNotFound.

        No other change comes between: the order is locked, or at the commit it must be as it was read.
        """

    async def lock(self, order_id: UUID) -> None:
        """Lock the order against other changes, and its timeline with it; raises OrderNotFound."""

    async def tags(self, names: Sequence[str]) -> Sequence[Tag]:
        """Return the tags of these normalised names, made where missing."""

    async def held_by_others(self, user_id: UUID) -> Sequence[Order]:
        """Return the user's orders for which another user's credit is held, locked against other changes."""

    async def transfer(self, from_user_id: UUID, to_user_id: UUID, now: datetime) -> Sequence[tuple[UUID, OrderStatus]]:
        """Give all orders of a user, who is locked, to another, and return which; raises OrderAlreadyExists."""


class NoteRepository(Protocol):
    """Notes that this unit of work changes. Their events are on the timeline of the order, which is locked for them."""

    async def add(self, note: OrderNote) -> None:
        """Keep a new note of an order that is locked."""

    async def get_for_update(self, note_id: UUID) -> OrderNote:
        """Return the note, it and its order locked against other changes; raises NoteNotFound."""

    async def delete(self, note: OrderNote) -> None:
        """Delete the note with the flush."""


class CreditRepository(Protocol):
    """The ledger that this unit of work adds to."""

    async def lock(self, accounts: Sequence[tuple[UUID, str]]) -> list[CreditAccount]:
        """Return the credit of users in currencies as asked for, locked in one order and made where missing."""

    def record(self, transaction: Transaction) -> None:
        """Add the entries to the ledger with the flush."""


class UnitOfWork(Protocol):
    """One transaction. It begins with the first use of a repository, and leaving it without `commit` rolls back."""

    @property
    def users(self) -> UserRepository:
        """The users."""

    @property
    def orders(self) -> OrderRepository:
        """The orders."""

    @property
    def notes(self) -> NoteRepository:
        """The notes about orders."""

    @property
    def credit(self) -> CreditRepository:
        """The ledger."""

    def record(self, events: Iterable[Event]) -> None:
        """Add events that no entity holds."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Return a block whose writes are undone if it raises, and only these.

        Raises:
            AlreadyExists, StoreError: where the block raises what they mean.
        """

    async def flush(self) -> None:
        """Write what changed, and its events, without committing; raises AlreadyExists and StoreError."""

    async def commit(self, response: bytes) -> None:
        """Flush, store the response under the request id if there is one, and commit.

        Raises:
            OutcomeUnknown: the connection broke during COMMIT.
            AlreadyExists, StoreError: as in `flush`; nothing was written.
        """


class UnitOfWorkFactory(Protocol):
    """Opens units of work."""

    def __call__(
        self, *, actor: str, request: RequestKey | None, time_left: "TimeLeft"
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """Return a unit of work.

        Args:
            actor: who causes the events and ledger entries.
            request: the request id to claim, if the call has one. The claim waits for another call that holds it.
            time_left: how long the call may still take.

        Raises:
            AlreadyAnswered, RequestIdReused: when the unit of work claims the request id.
            AlreadyExists, StoreError: when the block raises an error of the database that means one of these.
            NeedsTransaction: only the fast path, for what it cannot do; nothing was written.
        """


class TimeLeft(Protocol):
    """How long a call may still take."""

    def __call__(self) -> float:
        """Return the seconds that are left; zero or less when the time is up."""
