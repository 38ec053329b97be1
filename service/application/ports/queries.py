"""The read side: queries, and the rows and pages that they return."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from service.domain.orders import OrderStatus
from service.domain.search import NoteQuery, SearchQuery
from service.domain.users import UserState

# Maximum number of matches that a search ranks; it leaves out any further matches.
MAX_RANKED = 10_000
# The most sums that statistics have; more would take too much time and memory to answer.
MAX_SUMS = 10_000

# The maximum size of a page of rows unless the page says otherwise.
MAX_PAGE_BYTES = 4_000_000

# In rows of lists and batches, `row_bytes` is the size of the row's message in a response: of the encoded message, or
# else an estimate from the lengths of its texts, which is at least the size and at most four times as much.
#
# A row of the read side has the attributes of the entity. Times of users and orders are integers, in microseconds since
# 1970, and so are amounts of orders, in ten-thousandths. If a user or an order has an encoded message, `message` is
# set, and the attributes that the message contains are None. Exceptions are the attributes that form positions in
# lists, and the state of a user.
Row = Any


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and its password hash."""

    user: Row
    password_hash: str


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list to read: up to `size` rows after the keyset position `after`.

    It ends before the first row with which its message would exceed `max_bytes`, but has at least one row.
    """

    size: int
    after: tuple[Any, ...] | None
    include_total_size: bool
    max_bytes: int = MAX_PAGE_BYTES


@dataclass(frozen=True, slots=True)
class PageOfRows:
    """Rows of one page, whether more follow, and the total number of rows if it was requested, else 0."""

    rows: Sequence[Row]
    has_more: bool
    total_size: int


class UserOrder(StrEnum):
    """The order of a list of users: by creation time, or by username."""

    NEWEST = "NEWEST"
    OLDEST = "OLDEST"
    USERNAME = "USERNAME"


class OrderOrder(StrEnum):
    """The order of a list of orders: by creation time."""

    NEWEST = "NEWEST"
    OLDEST = "OLDEST"


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Filter of users; None matches all. The times include the start and exclude the end."""

    states: Sequence[UserState] | None
    created_from: datetime | None
    created_before: datetime | None
    superuser: bool | None


@dataclass(frozen=True, slots=True)
class TopUsers:
    """Which top users statistics include: at most `limit` users, each with more than `more_than` orders."""

    more_than: int
    limit: int


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Filter of orders; None matches all. The times include the start and exclude the end."""

    user_id: UUID | None
    statuses: Sequence[OrderStatus] | None
    created_from: datetime | None
    created_before: datetime | None
    # Normalised; empty matches all orders.
    tags_any: Sequence[str]
    tags_all: Sequence[str]


@dataclass(frozen=True, slots=True)
class NoteFilter:
    """Filter of notes; None matches all."""

    order_id: UUID | None
    author_id: UUID | None
    include_drafts: bool


class UserQueries(Protocol):
    """The read side of users. Every method is one statement, and raises StoreError."""

    async def by_id(self, user_id: str) -> Row | None:
        """Return the user with this id, in lower case."""

    async def by_ids(self, user_ids: Sequence[str], max_bytes: int | None = MAX_PAGE_BYTES) -> Sequence[Row]:
        """Return the users with these ids, in any order, and for each the size of its message as `row_bytes`.

        If the sizes exceed `max_bytes`, so do those of the rows that are returned, but further rows are left out.
        Without `max_bytes`, all rows are returned, without `row_bytes`, which takes less time.
        """

    async def by_email(self, email: str) -> Row | None:
        """Return the user with this e-mail, ignoring case."""

    async def by_username(self, username: str) -> Row | None:
        """Return the user with this username, ignoring case."""

    async def known_emails(self, emails: Sequence[str]) -> Collection[str]:
        """Return the given e-mails that users have, ignoring case; the given e-mails are in lower case."""

    async def page(self, where: UserFilter, order_by: UserOrder, page: Page) -> PageOfRows:
        """Return a page of users."""

    async def search(self, query: SearchQuery, page: Page, *, show_deleted: bool) -> PageOfRows:
        """Return a page of the users whose username, full name or bio contains the words, best match first.

        Each row has a `rank`. `total_size` is always set, to at most MAX_RANKED.
        """

    async def credentials(self, *, email: str | None = None, username: str | None = None) -> Credentials | None:
        """Return the user with this e-mail or username, with its password hash."""


class OrderQueries(Protocol):
    """The read side of orders, each with its items and tags. Every method is one statement, and raises StoreError."""

    async def by_id(self, order_id: str) -> Row | None:
        """Return the order with this id, in lower case."""

    async def by_ids(self, order_ids: Sequence[str], max_bytes: int = MAX_PAGE_BYTES) -> Sequence[Row]:
        """Return the orders with these ids, in any order, and for each the size of its message as `row_bytes`.

        If the sizes exceed `max_bytes`, so do those of the rows that are returned, but further rows are left out.
        """

    async def by_number(self, order_number: str) -> Row | None:
        """Return the order with this number."""

    async def page(self, where: OrderFilter, order_by: OrderOrder, page: Page) -> PageOfRows:
        """Return a page of orders."""

    async def statistics(self, where: OrderFilter, top_users: TopUsers) -> Sequence[Row]:
        """Return sums over orders.

        Rows with a `day` have the sums of a day, status and currency. Rows with a `user_id` have those of a top user
        and a currency, with the number of orders in all currencies; the user with the most orders comes first.
        There are at most MAX_SUMS rows, and one more if the rest is left out.
        """

    async def events(self, order_id: UUID, page: Page) -> PageOfRows | None:
        """Return a page of the order's events, oldest first; None if there is no such order."""

    async def tags(self, prefix: str, page: Page) -> PageOfRows:
        """Return a page of the tags that begin with `prefix`, sorted by name, each with its `order_count`."""


class NoteQueries(Protocol):
    """The read side of notes. Every method is one statement, and raises StoreError."""

    async def page(self, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of notes, newest first."""

    async def search(self, query: NoteQuery, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of the notes that match `query`, best match first, each with its `rank`.

        `total_size` is always set, to at most MAX_RANKED.
        """


class Snapshot(Protocol):
    """A read side that always shows the data as of the first use of the snapshot."""

    @property
    def users(self) -> UserQueries:
        """The users."""

    @property
    def orders(self) -> OrderQueries:
        """The orders."""


class Snapshots(Protocol):
    """Opens a limited number of snapshots."""

    def __call__(self) -> AbstractAsyncContextManager[Snapshot]:
        """Return a snapshot; raises Overloaded if too many are open, and StoreError."""


class CreditQueries(Protocol):
    """The read side of credit. Every method is one statement, and raises StoreError; None means an unknown user."""

    async def balances(self, user_id: UUID) -> Sequence[Row] | None:
        """Return the credit of the user, one row for each currency, sorted by currency."""

    async def entries(self, user_id: UUID, currency: str | None, page: Page) -> PageOfRows | None:
        """Return a page of the ledger entries of the user, newest first."""


class OwnerQueries(Protocol):
    """Whose things are. Every method is one statement on the primary, and raises StoreError.

    Each takes keys that are different, and returns the ids of the users to whom the things with these keys belong: one
    for each thing that exists, in any order.
    """

    async def of_orders(self, order_ids: Sequence[str]) -> Sequence[UUID]:
        """Return the users to whom the orders with these ids belong."""

    async def of_order_numbers(self, order_numbers: Sequence[str]) -> Sequence[UUID]:
        """Return the users to whom the orders with these numbers belong."""

    async def of_notes(self, note_ids: Sequence[str]) -> Sequence[UUID]:
        """Return the authors of the notes with these ids."""

    async def of_emails(self, emails: Sequence[str]) -> Sequence[UUID]:
        """Return the users with these e-mail addresses, ignoring case."""

    async def of_usernames(self, usernames: Sequence[str]) -> Sequence[UUID]:
        """Return the users with these usernames, ignoring case."""


class MaintenanceQueries(Protocol):
    """The read side of periodic maintenance. Every method is one statement, and raises StoreError."""

    async def orders_with_expired_holds(self, now: datetime) -> Sequence[UUID]:
        """Return the ids of orders whose credit hold has expired."""

    async def users_to_purge(self, now: datetime) -> Sequence[UUID]:
        """Return the ids of deleted users whose `purge_time` has passed."""
