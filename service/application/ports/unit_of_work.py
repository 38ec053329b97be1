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
    """Identifies a repeated request (AIP-155): the caller, the method, the request id, and a digest of the body.

    Attributes:
        accepted_digests: of the same body with other keys; an earlier call may have stored one of them.
    """

    caller: str
    method: str
    request_id: UUID
    body_digest: bytes
    accepted_digests: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Actor:
    """Who causes events and ledger entries, and the user for whom it acts, if there is one."""

    name: str
    on_behalf_of: UUID | None = None


class UserRepository(Protocol):
    """Users that this unit of work changes."""

    async def add(self, user: User, password_hash: str) -> None:
        """Add a new user; the flush raises UserAlreadyExists."""

    async def get_for_update(self, user_id: UUID) -> User:
        """Return the user, locked against other changes; raises UserNotFound."""

    async def get_for_purge(self, user_id: UUID) -> User:
        """Return the user, locked against every use of it, with the users whose credit is held for its orders locked.

        Raises:
            UserNotFound: there is no such user.
            Contention: others have begun to pay for its orders meanwhile.
        """

    async def get_for_share(self, user_id: UUID) -> User:
        """Return the user, locked so that no other transaction changes it; raises UserNotFound."""

    async def require_active(self, user_id: UUID, action: str) -> None:
        """Require that the user is ACTIVE until the commit; this or the commit raises UserNotFound or UserNotActive.

        `action` names what requires it, such as `place orders`.
        """

    async def has_open_orders_or_credit(self, user_id: UUID) -> bool:
        """Return whether the user has open orders or credit, which only a purge with `force` deletes."""

    async def purge(self, user: User) -> int:
        """Delete the user with all data that belongs to it, and return the number of its orders.

        No order of others has the user as payer any more, and none has notes of the user; that has been flushed.
        """

    async def ids_by_email(self, emails: Sequence[str]) -> Mapping[str, UUID]:
        """Return the ids of the users that have one of these e-mails, keyed by e-mail in lower case."""

    async def by_email_for_update(self, emails: Sequence[str]) -> Mapping[str, User]:
        """Return the users that have one of these e-mails, keyed by e-mail in lower case, locked against changes."""

    async def add_all(self, users: Sequence[User], password_hashes: Mapping[UUID, str]) -> None:
        """Add new users together; `password_hashes` has the hashes of users with a password, keyed by user id.

        Raises:
            UserAlreadyExists: another user has one of the usernames.
            Contention: another transaction has added a user with one of the e-mails.
        """

    async def set_password_hash(self, user_id: UUID, password_hash: str, now: datetime) -> None:
        """Set the password hash of an existing user, who may have none yet."""

    async def replace_password_hash(self, user_id: UUID, old: str, new: str, now: datetime) -> None:
        """Replace the password hash if it is still `old`."""

    async def encode_missing(self, limit: int) -> int:
        """Store encoded messages of up to `limit` users that have none; returns the number of users updated."""

    async def write_words(self, limit: int) -> int:
        """Write the search words of up to `limit` users whose words a trigger wrote; returns the number updated."""


@dataclass(eq=False, kw_only=True)
class EncodedOrder(OrderHeader):
    """An order without credit, whose items and tags are only in the encoded message that was read."""

    message: bytes


class OrderRepository(Protocol):
    """Orders that this unit of work changes."""

    async def next_number(self) -> str:
        """Return a new, unique order number."""

    async def add(self, order: Order) -> None:
        """Add a new order; raises OrderAlreadyExists, here or when the unit of work is flushed or committed."""

    async def get_for_update(self, order_id: UUID) -> Order:
        """Return the order with its items and tags, locked against other changes; raises OrderNotFound.

        If credit pays for the order, its payer is locked first, so that it is not purged meanwhile.
        """

    async def get_for_transition(self, order_id: UUID) -> Order | EncodedOrder:
        """Return the order for a transition and no other change; raises OrderNotFound.

        No other transaction changes it meanwhile: the order is locked, or the commit checks that it has not changed.
        """

    async def lock(self, order_id: UUID) -> None:
        """Lock the order and its timeline against other changes; raises OrderNotFound."""

    async def tags(self, names: Sequence[str]) -> Sequence[Tag]:
        """Return the tags with these normalised names; creates those that are missing."""

    async def lock_for_purge(self, user_id: UUID) -> tuple[Sequence[Order], Sequence[Order]]:
        """Lock all orders that a purge of a locked user changes or deletes.

        Returns the user's orders for which another user's credit is held, and the orders of others that the user's
        credit pays for.
        """

    async def transfer(
        self, from_user_id: UUID, to_user_id: UUID, now: datetime
    ) -> Sequence[tuple[UUID, OrderStatus, datetime]]:
        """Transfer all orders of a locked user to another, and return the id, status and update time of each.

        Raises:
            OrderAlreadyExists: both have an order with the same external reference.
        """


class NoteRepository(Protocol):
    """Notes that this unit of work changes. Their events are in the order's timeline, so the order is locked too."""

    async def add(self, note: OrderNote) -> None:
        """Add a new note about a locked order."""

    async def get_for_update(self, note_id: UUID) -> OrderNote:
        """Return the note; the note and its order are locked against other changes. Raises NoteNotFound."""

    async def about_orders_of_others(self, author_id: UUID) -> Sequence[OrderNote]:
        """Return the notes of a locked author about orders of others, which are locked too."""

    async def write_words(self, limit: int) -> int:
        """Write the search words of up to `limit` notes whose words a trigger wrote; returns the number updated."""

    async def delete(self, note: OrderNote) -> None:
        """Delete the note in the flush."""


class CreditRepository(Protocol):
    """The ledger that this unit of work writes to."""

    async def lock(self, accounts: Sequence[tuple[UUID, str]]) -> list[CreditAccount]:
        """Return the credit of these users and currencies; creates missing rows, and locks all in a fixed order.

        The users are locked. A unit of work calls this once, for all accounts that it needs.
        """

    def record(self, transaction: Transaction) -> None:
        """Add the entries to the ledger in the flush."""


class UnitOfWork(Protocol):
    """One transaction. It begins with the first use of a repository, and leaving it without `commit` rolls back."""

    async def begin(self) -> None:
        """Begin the transaction now, and claim the request id if the call has one.

        Raises:
            AlreadyAnswered, RequestIdReused: see `UnitOfWorkFactory`.
        """

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
        """Add events that no entity has recorded."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Return a block whose writes are rolled back if it raises; earlier writes stay.

        Raises:
            AlreadyExists, StoreError: the block raised a database error that is translated to one of these.
        """

    async def flush(self) -> None:
        """Write changes and events without committing; raises AlreadyExists and StoreError."""

    async def commit(self, response: bytes, subjects: Sequence[UUID] = ()) -> None:
        """Flush, store the response under the request id if there is one, and commit.

        Args:
            response: the response of the call.
            subjects: the ids of the users and orders that it is about, at most two. A purge of one of them deletes the
                stored response.

        Raises:
            OutcomeUnknown: the connection was lost during COMMIT.
            AlreadyExists, StoreError: see `flush`; nothing was written.
        """


class UnitOfWorkFactory(Protocol):
    """Opens units of work."""

    def __call__(
        self, *, actor: str, on_behalf_of: UUID | None = None, request: RequestKey | None, time_left: "TimeLeft"
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """Return a unit of work.

        Args:
            actor: who causes the events and ledger entries.
            on_behalf_of: the user for whom the actor acts, if there is one.
            request: the request id to claim, if the call has one. The claim waits for another call with the same id.
            time_left: how long the call may still take.

        Raises:
            AlreadyAnswered, RequestIdReused: when the unit of work claims the request id.
            AlreadyExists, StoreError: when the block raises a database error that is translated to one of these.
            NeedsTransaction: when the fast path cannot do the work (only the fast path raises it); nothing was written.
        """


class TimeLeft(Protocol):
    """How long a call may still take."""

    def __call__(self) -> float:
        """Return the seconds that are left; zero or less after the deadline."""
