"""What the application needs from outside, as protocols with the errors that they raise.

StoreError
├── Contention              other transactions were in the way; nothing was written; worth another try
├── DatabaseUnavailable     no connection, or it broke before COMMIT; nothing was written; worth another try
├── OutcomeUnknown          the connection broke during COMMIT
└── DeadlineExceeded        the call's time ran out; nothing was written
Overloaded                  too much work of this kind is waiting already
ExportStalled               the caller of an export stopped reading
NotAtOnce                   to be done anew, step by step: not a failure
AlreadyAnswered             the request id has a stored response: not a failure
"""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from service.domain.credit import CreditAccount, Transaction
from service.domain.events import Event
from service.domain.notes import OrderNote
from service.domain.orders import Order, OrderHeader, OrderStatus
from service.domain.search import SearchQuery
from service.domain.tags import Tag
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


class ExportStalled(Exception):
    """Nothing of an export was read for too long."""


class NotAtOnce(Exception):
    """A unit of work that was to be done `at_once` cannot be; nothing was written. To be done anew, step by step."""


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

    async def keep(self, limit: int) -> int:
        """Keep messages of up to so many users that have none and are not locked, and return of how many."""


@dataclass(eq=False, kw_only=True)
class KeptOrder(OrderHeader):
    """An order that no credit pays for, and what is in it only as the API sends it: `message`, as it was read."""

    message: bytes


class OrderRepository(Protocol):
    """Orders that this unit of work changes."""

    async def next_number(self) -> str:
        """Return an order number that no order has or will have."""

    async def add(self, order: Order) -> None:
        """Keep a new order; OrderAlreadyExists comes with the flush."""

    async def get_for_update(self, order_id: UUID) -> Order:
        """Return the order with its items and tags, locked against other changes; raises OrderNotFound."""

    async def get_for_transition(self, order_id: UUID) -> Order | KeptOrder:
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
        self, *, actor: str, request: RequestKey | None, time_left: "TimeLeft", at_once: bool = False
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """Return a unit of work of `actor`; `at_once`, it may be done with one statement, or raise NotAtOnce.

        With `request`, its first use claims the request id, waiting for another call that holds it, and raises
        AlreadyAnswered, or RequestIdReused for another body. A StoreError or AlreadyExists that happens inside comes
        out as such.
        """


class TimeLeft(Protocol):
    """How long a call may still take."""

    def __call__(self) -> float:
        """Return the seconds that are left; zero or less when the time is up."""


# How many matches of a search are ranked; of more, the others are left out.
MAX_RANKED = 10_000

# A row of the read side: attributes named like those of the entity. Times of users and orders are microseconds since
# 1970, and amounts of orders ten-thousandths, both as integers. A user or an order has itself as `message`, as the API
# sends it; what that says is None then, but for what positions in lists are made of and the state of a user.
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
class TopUsers:
    """Which users a statistic names: at most `limit` of those with more than `more_than` orders."""

    more_than: int
    limit: int


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders to list; None means any. The times include the start and exclude the end."""

    user_id: UUID | None
    statuses: Sequence[OrderStatus] | None
    created_from: datetime | None
    created_before: datetime | None
    # Normalised, and empty for any order.
    tags_any: Sequence[str]
    tags_all: Sequence[str]


@dataclass(frozen=True, slots=True)
class NoteFilter:
    """Which notes to find; None means any."""

    order_id: UUID | None
    author_id: UUID | None
    include_drafts: bool


class UserQueries(Protocol):
    """The read side of users. Every method is one statement, and raises StoreError."""

    async def by_id(self, user_id: str) -> Row | None:
        """Return the user with this id, in lower case."""

    async def by_ids(self, user_ids: Sequence[str]) -> Sequence[Row]:
        """Return the users with these ids, in any order."""

    async def by_email(self, email: str) -> Row | None:
        """Return the user with this e-mail, whatever its case."""

    async def by_username(self, username: str) -> Row | None:
        """Return the user with this username."""

    async def known_emails(self, emails: Sequence[str]) -> Collection[str]:
        """Return those of these e-mails, in lower case, that users have, whatever their case."""

    async def page(self, where: UserFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of users; `order_by` is NEWEST, OLDEST or USERNAME."""

    async def search(self, query: SearchQuery, page: Page, *, show_deleted: bool) -> PageOfRows:
        """Return a page of the users that have the words in username, full name or bio, best first.

        Each row has a `rank`. `total_size` is filled always, and is at most MAX_RANKED.
        """

    async def credentials(self, *, email: str | None = None, username: str | None = None) -> Credentials | None:
        """Return the password hash of the user with this e-mail or username."""


class OrderQueries(Protocol):
    """The read side of orders, each with its items and tags. Every method is one statement, and raises StoreError."""

    async def by_id(self, order_id: str) -> Row | None:
        """Return the order with this id, in lower case."""

    async def by_ids(self, order_ids: Sequence[str]) -> Sequence[Row]:
        """Return the orders with these ids, in any order."""

    async def by_number(self, order_number: str) -> Row | None:
        """Return the order with this number."""

    async def page(self, where: OrderFilter, order_by: str, page: Page) -> PageOfRows:
        """Return a page of orders; `order_by` is NEWEST or OLDEST."""

    async def statistics(self, where: OrderFilter, top_users: TopUsers) -> Sequence[Row]:
        """Return sums over orders.

        Rows with a `day` are for a day, status and currency. Rows with a `user_id` are for a top user and a currency,
        with the user's number of orders in all currencies, most first.
        """

    async def events(self, order_id: UUID, page: Page) -> PageOfRows | None:
        """Return a page of the order's events, oldest first; None if there is no such order."""

    async def tags(self, prefix: str, page: Page) -> PageOfRows:
        """Return a page of the tags that begin with `prefix`, by name, each with its `order_count`."""


class NoteQueries(Protocol):
    """The read side of notes. Every method is one statement, and raises StoreError."""

    async def page(self, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of notes, last written first."""

    async def search(self, query: str, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of the notes that `query` finds, best first, each with its `rank` and a `snippet`.

        `total_size` is filled always, and is at most MAX_RANKED.
        """


class Snapshot(Protocol):
    """A read side on which everything stays as it was when it was first used."""

    @property
    def users(self) -> UserQueries:
        """The users."""

    @property
    def orders(self) -> OrderQueries:
        """The orders."""


class Snapshots(Protocol):
    """Opens snapshots, a few at once."""

    def __call__(self) -> AbstractAsyncContextManager[Snapshot]:
        """Return a snapshot; raises Overloaded where there are too many, and StoreError."""


class CreditQueries(Protocol):
    """The read side of credit. Every method is one statement, None if there is no such user, and raises StoreError."""

    async def balances(self, user_id: UUID) -> Sequence[Row] | None:
        """Return the user's credit, a row for each currency, by currency."""

    async def entries(self, user_id: UUID, currency: str | None, page: Page) -> PageOfRows | None:
        """Return a page of the user's ledger, last made first."""


class MaintenanceQueries(Protocol):
    """What time alone decides. Every method is one statement, and raises StoreError."""

    async def orders_with_expired_holds(self, now: datetime) -> Sequence[UUID]:
        """Return orders whose credit was set aside for too long."""

    async def users_to_purge(self, now: datetime) -> Sequence[UUID]:
        """Return deleted users whose time to be brought back is over."""


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
