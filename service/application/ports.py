"""What the application needs from outside, as protocols with the errors that they raise.

StoreError
├── Contention              other transactions were in the way; nothing was written; worth another try
├── DatabaseUnavailable     no connection, or it broke before COMMIT; nothing was written; worth another try
├── OutcomeUnknown          the connection broke during COMMIT
└── DeadlineExceeded        the call's time ran out; nothing was written
Overloaded                  too much work of this kind is waiting already
AlreadyAnswered             the request id has a stored response: not a failure
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from service.domain.credit import CreditAccount, Transaction
from service.domain.orders import Order, OrderStatus
from service.domain.users import User, UserState


class StoreError(Exception):
    """The store could not do its work. Its message holds nothing of the statement or its values."""


class Contention(StoreError):
    """A deadlock, a serialization failure or a lock not had in time; the transaction was rolled back."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached, or broke the connection before COMMIT."""


class OutcomeUnknown(StoreError):
    """The connection broke during COMMIT: the transaction may or may not have happened."""


class DeadlineExceeded(StoreError):
    """The call's time ran out, and its transaction was rolled back."""


class Overloaded(Exception):
    """Too much work of one kind is waiting already; nothing was done."""


class AlreadyAnswered(Exception):
    """This request was answered before; `response` holds the same bytes."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response


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

    async def set_password_hash(self, user_id: UUID, password_hash: str, now: datetime) -> None:
        """Replace the hash of a user that exists."""

    async def replace_password_hash(self, user_id: UUID, old: str, new: str, now: datetime) -> None:
        """Replace the hash, unless it is no longer `old`."""


class OrderRepository(Protocol):
    """Orders that this unit of work changes."""

    async def next_number(self) -> str:
        """Return an order number that no order has or will have."""

    async def add(self, order: Order) -> None:
        """Keep a new order; OrderAlreadyExists comes with the flush."""

    async def get_for_update(self, order_id: UUID) -> Order:
        """Return the order with its items, locked against other changes; raises OrderNotFound."""


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
    def credit(self) -> CreditRepository:
        """The ledger."""

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
        """Return a unit of work of `actor`.

        With `request`, its first use claims the request id, waiting for another call that holds it, and raises
        AlreadyAnswered, or RequestIdReused for another body. A StoreError or AlreadyExists that happens inside comes
        out as such.
        """


class TimeLeft(Protocol):
    """How long a call may still take."""

    def __call__(self) -> float:
        """Return the seconds that are left; zero or less when the time is up."""


# A row of the read side: attributes named like those of the entity.
Row = Any


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user, and the hash of its password."""

    user: Row
    password_hash: str


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list to read: up to `size` rows after the keyset position `after`."""

    size: int
    after: tuple[Any, ...] | None
    include_total_size: bool


@dataclass(frozen=True, slots=True)
class PageOfRows:
    """Rows of one page, whether more follow, and the number of all if it was asked for."""

    rows: Sequence[Row]
    has_more: bool
    total_size: int


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users to list; None means any. The times include the start and exclude the end."""

    states: Sequence[UserState] | None
    created_from: datetime | None
    created_before: datetime | None
    superuser: bool | None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders to list; None means any. The times include the start and exclude the end."""

    user_id: UUID | None
    statuses: Sequence[OrderStatus] | None
    created_from: datetime | None
    created_before: datetime | None


class UserQueries(Protocol):
    """The read side of users. Every method is one statement, and raises StoreError."""

    async def by_ids(self, user_ids: Sequence[UUID]) -> Sequence[Row]:
        """Return the users with these ids, in any order."""

    async def by_email(self, email: str) -> Row | None:
        """Return the user with this e-mail, whatever its case."""

    async def by_username(self, username: str) -> Row | None:
        """Return the user with this username."""

    async def page(self, where: UserFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of users; `order_by` is NEWEST, OLDEST or USERNAME."""

    async def credentials(self, *, email: str | None = None, username: str | None = None) -> Credentials | None:
        """Return the password hash of the user with this e-mail or username."""


class OrderQueries(Protocol):
    """The read side of orders, each with its items. Every method is one statement, and raises StoreError."""

    async def by_ids(self, order_ids: Sequence[UUID]) -> Sequence[Row]:
        """Return the orders with these ids, in any order."""

    async def by_number(self, order_number: str) -> Row | None:
        """Return the order with this number."""

    async def page(self, where: OrderFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of orders; `order_by` is NEWEST or OLDEST."""

    async def events(self, order_id: UUID, page: Page) -> PageOfRows | None:
        """Return a page of the order's events, oldest first; None if there is no such order."""


class CreditQueries(Protocol):
    """The read side of credit. Every method is one statement, None if there is no such user, and raises StoreError."""

    async def balances(self, user_id: UUID) -> Sequence[Row] | None:
        """Return the user's credit, a row for each currency, by currency."""

    async def entries(self, user_id: UUID, currency: str | None, page: Page) -> PageOfRows | None:
        """Return a page of the user's ledger, last made first."""


class Place(NamedTuple):
    """The place of an event in the order of all events, in which a later one never comes before an earlier one read."""

    xid: int
    position: int


class PlaceSwept(Exception):
    """Events after this place are no longer kept; `earliest` is the first place that works."""

    def __init__(self, earliest: Place) -> None:
        super().__init__()
        self.earliest = earliest


class EventFeed(Protocol):
    """The events of all users and orders, as they are committed."""

    async def earliest(self) -> Place:
        """Return the place before the first event that is kept; raises StoreError."""

    async def latest(self) -> Place:
        """Return the place of the last event; raises StoreError."""

    def follow(self, after: Place, wanted: Callable[[Row], bool]) -> AsyncGenerator[tuple[Place, Row | None], None]:
        """Yield each event after a place that is wanted, once, with its own place, and wait for more.

        None instead of an event only says how far the reader has come; one such comes at once if no event does.

        Raises:
            PlaceSwept: events after the place are no longer kept.
            SlowConsumer: this reader takes too long for what comes.
            ServerDraining: the server shuts down.
            StoreError: the first read failed; later ones are tried again until they succeed.
        """


class Passwords(Protocol):
    """Hashes and checks passwords off the event loop; every method raises Overloaded."""

    async def hash(self, password: str) -> str:
        """Return a salted hash."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether the password has this hash; None takes as long and is False."""

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with other parameters than are set now."""
