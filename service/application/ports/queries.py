"""The read side: queries, and the rows and pages that they return."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from service.domain.orders import OrderStatus
from service.domain.search import SearchQuery
from service.domain.users import UserState

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

    async def page(self, where: UserFilter, order_by: UserOrder, page: Page) -> PageOfRows:
        """Return a page of users."""

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

    async def page(self, where: OrderFilter, order_by: OrderOrder, page: Page) -> PageOfRows:
        """Return a page of orders."""

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
