"""Every query on large tables: the rows that it reads do not grow with the tables."""

import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from service.application import ports
from service.application.ports.events import EventPosition
from service.application.ports.queries import MAX_RANKED, NoteFilter, OrderFilter, Page, TopUsers, UserFilter
from service.config import ServerSettings, load
from service.db.database import Database
from service.db.events.feed import PollingEventFeed
from service.db.tables import metadata
from service.domain.orders import OPEN_STATUSES, OrderStatus
from service.domain.search import NoteQuery, SearchQuery
from service.domain.users import UserState
from service.server import MESSAGE_ENCODERS
from tests.support.databases import driver_connection
from tests.support.methods import METHODS, call
from tests.support.requests import GOOD_REQUESTS
from tests.support.servers import serving_clients
from tests.support.volume import BUSY_ORDER, DATA, WHOLESALER, Explained, listening_to_new_connections, volume_database

READ_PORTS = {
    "UserQueries",
    "OrderQueries",
    "NoteQueries",
    "CreditQueries",
    "OwnerQueries",
    "MaintenanceQueries",
    "EventFeed",
}
OTHER_PORTS = {
    "UserRepository",
    "OrderRepository",
    "NoteRepository",
    "CreditRepository",
    "UnitOfWork",
    "UnitOfWorkFactory",
    "TimeLeft",
    # These return the ports above.
    "Snapshot",
    "Snapshots",
    "Passwords",
    # It reads single rows by its key, which tests/db/writes/test_sign_in_attempts.py checks.
    "SignInAttempts",
}
# These tables have one row per process, database or relay, or rows by key in a fixed number, and are read by key.
SMALL_TABLES = {"signing_keys", "swept_events", "relay_cursors", "sign_in_attempts", "maintenance_runs"}
# After the fifth execution of a statement PostgreSQL chooses between a custom and a generic plan.
RUNS = 7
# The maximum number of rows that a search ranks, and drafts between them; fewer rows than most tables have.
MAX_ROWS = 2 * MAX_RANKED
# Reasons why a query may read whole tables.
A_COUNT = "a total_size counts everything that it is the size of"
A_SUM = "statistics are sums over everything that they are asked for"
COUNTS_OF_TAGS = "each tag has the number of its orders"


class Case(NamedTuple):
    """A query, and the reason why it may read whole tables; empty if it may not."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    reads_all: str


def ask(*arguments: Any, reads_all: str = "", **keywords: Any) -> Case:
    return Case(arguments, keywords, reads_all)


def pages(after: tuple[Any, ...], *, largest: bool = False) -> Iterator[Page]:
    """Yield requests for the first page and for one in the middle."""
    size = 1000 if largest else 50
    yield Page(size, None, include_total_size=False)
    yield Page(size, after, include_total_size=False)


def with_total(page: Page) -> Page:
    return replace(page, include_total_size=True)


def users(**fields: Any) -> UserFilter:
    return UserFilter(**{"states": None, "created_from": None, "created_before": None, "superuser": None, **fields})


def orders(**fields: Any) -> OrderFilter:
    nothing = {"user_id": None, "statuses": None, "created_from": None, "created_before": None}
    return OrderFilter(**{**nothing, "tags_any": (), "tags_all": (), **fields})


def notes(**fields: Any) -> NoteFilter:
    return NoteFilter(**{"order_id": None, "author_id": None, "include_drafts": False, **fields})


def user_time(user: int) -> datetime:
    return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=user)


def order_time(order: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=order)


USER, ORDER = DATA.users // 2, DATA.orders // 2
USER_ID, ORDER_ID = UUID(DATA.user_id(USER)), UUID(DATA.order_id(ORDER))
WHOLESALER_ID, BUSY_ORDER_ID = UUID(DATA.user_id(WHOLESALER)), UUID(DATA.order_id(BUSY_ORDER))
USER_IDS = [DATA.user_id(number) for number in range(1, DATA.users, DATA.users // 1000)]
ORDER_IDS = [DATA.order_id(number) for number in range(1, DATA.orders, DATA.orders // 1000)]
AFTER_A_USER, AFTER_AN_ORDER = (user_time(USER), USER_ID), (order_time(ORDER), ORDER_ID)
TOP = TopUsers(more_than=10, limit=10)

INACTIVE, DELETED = UserState.INACTIVE, UserState.DELETED
SOME_USERS = {"created_from": user_time(USER), "created_before": user_time(USER + 100)}
USER_FILTERS = [
    users(),
    users(states=[UserState.ACTIVE, INACTIVE]),
    users(states=[INACTIVE]),
    users(states=[DELETED]),
    users(states=[INACTIVE, DELETED]),
    users(superuser=True),
    users(superuser=False),
    users(states=[UserState.ACTIVE], superuser=True),
    users(**SOME_USERS),
    users(**SOME_USERS, states=[INACTIVE]),
    users(created_from=user_time(1000)),
    users(created_before=user_time(USER)),
]
PENDING, ENDED = [OrderStatus.PENDING], [OrderStatus.DELIVERED, OrderStatus.CANCELLED]
SOME_ORDERS = {"created_from": order_time(ORDER), "created_before": order_time(ORDER + 100)}
ORDER_FILTERS: list[dict[str, Any]] = [
    {},
    {"statuses": PENDING},
    {"statuses": list(OPEN_STATUSES)},
    {"statuses": ENDED},
    SOME_ORDERS,
    {**SOME_ORDERS, "statuses": PENDING},
    {"created_from": order_time(ORDER)},
    {"created_before": order_time(ORDER)},
]
# Not with a user id: no index has both, and PostgreSQL reads everything that matches the condition it takes for
# the more selective one.
TAG_FILTERS: list[dict[str, Any]] = [
    {"tags_any": ["tag-1"]},
    {"tags_any": ["tag-1", "tag-2", "nobody"]},
    {"tags_any": ["tag-1"], "statuses": PENDING},
    {"tags_all": ["tag-1", "tag-2"]},
    {"tags_any": ["common"]},
    {"tags_any": ["common", "tag-1", "tag-2"]},
    {"tags_any": ["common"], "statuses": PENDING},
    {**SOME_ORDERS, "tags_any": ["common"]},
    {"tags_all": ["common"]},
    {"tags_all": ["common", "tag-5"]},
    {"tags_all": ["common", "nobody"]},
    {"tags_any": ["common"], "tags_all": ["tag-5"]},
]
NOTE_FILTERS = [
    notes(order_id=ORDER_ID),
    notes(author_id=USER_ID),
    notes(author_id=WHOLESALER_ID),
    notes(author_id=WHOLESALER_ID, include_drafts=True),
    notes(order_id=ORDER_ID, author_id=USER_ID),
]

CASES: dict[str, list[Case]] = {
    "UserQueries.by_id": [ask(USER_ID)],
    "UserQueries.by_ids": [ask(USER_IDS[:1]), ask(USER_IDS)],
    "UserQueries.by_email": [ask("USER9@example.com"), ask("nobody@example.com")],
    "UserQueries.by_username": [ask("user9"), ask("nobody")],
    "UserQueries.known_emails": [ask([f"user{number}@example.com" for number in range(1000)])],
    "UserQueries.page": [
        *(
            ask(where, order_by, page)
            for where in USER_FILTERS
            for order_by, after in (("NEWEST", AFTER_A_USER), ("OLDEST", AFTER_A_USER), ("USERNAME", ("user3",)))
            for page in pages(after)
        ),
        *(ask(users(), "NEWEST", page) for page in pages(AFTER_A_USER, largest=True)),
        *(
            ask(where, "NEWEST", with_total(page), reads_all=A_COUNT)
            for where in USER_FILTERS
            for page in pages(AFTER_A_USER)
        ),
    ],
    "UserQueries.search": [
        ask(SearchQuery.parse(words, "query"), Page(50, after, include_total_size=False), show_deleted=show_deleted)
        for words in ("user 77", "Ada Turing", "collects part number", "c")
        for after in (None, (0.05, USER_ID))
        for show_deleted in (False, True)
    ],
    "UserQueries.credentials": [ask(email="USER9@example.com"), ask(username="user9")],
    "OrderQueries.by_id": [ask(ORDER_ID)],
    "OrderQueries.by_ids": [ask(ORDER_IDS[:1]), ask(ORDER_IDS)],
    "OrderQueries.by_number": [ask(DATA.order_number(9)), ask("ORD-0")],
    "OrderQueries.page": [
        *(
            ask(orders(**where), order_by, page)
            for where in (
                *ORDER_FILTERS,
                *TAG_FILTERS,
                *({**where, "user_id": WHOLESALER_ID} for where in ORDER_FILTERS),
            )
            for order_by in ("NEWEST", "OLDEST")
            for page in pages(AFTER_AN_ORDER)
        ),
        *(ask(orders(), "NEWEST", page) for page in pages(AFTER_AN_ORDER, largest=True)),
        *(
            ask(orders(**where), "NEWEST", with_total(page), reads_all=A_COUNT)
            for where in (*ORDER_FILTERS, *TAG_FILTERS)
            for page in pages(AFTER_AN_ORDER)
        ),
    ],
    "OrderQueries.statistics": [
        ask(orders(user_id=USER_ID), TOP),
        ask(orders(**SOME_ORDERS), TOP),
        ask(orders(), TOP, reads_all=A_SUM),
        ask(orders(statuses=PENDING), TOP, reads_all=A_SUM),
    ],
    "OrderQueries.events": [
        ask(order_id, with_total(page) if total else page)
        for order_id in (ORDER_ID, BUSY_ORDER_ID)
        for page in pages((DATA.orders,), largest=True)
        for total in (False, True)
    ],
    "OrderQueries.tags": [
        *(ask("tag-12", page) for page in pages(("tag-123",))),
        *(ask("tag-12", with_total(page)) for page in pages(("tag-123",))),
        *(ask("", page, reads_all=COUNTS_OF_TAGS) for page in pages(("tag-123",))),
    ],
    "NoteQueries.page": [
        ask(where, with_total(page) if total else page)
        for where in NOTE_FILTERS
        for page in pages(AFTER_AN_ORDER)
        for total in (False, True)
    ],
    "NoteQueries.search": [
        ask(NoteQuery.parse(words, "query"), where, Page(50, after, include_total_size=False))
        for words in ("thing7", "part9 or part10", "common", "-thing7", "common/thing7")
        for where in (notes(), *NOTE_FILTERS)
        for after in (None, (0.05, ORDER_ID))
    ],
    "CreditQueries.balances": [ask(USER_ID)],
    "CreditQueries.entries": [
        *(
            ask(user_id, currency, page)
            for user_id in (USER_ID, WHOLESALER_ID)
            for currency in (None, "EUR", "USD")
            for page in pages((DATA.users,))
        ),
        *(
            ask(WHOLESALER_ID, currency, with_total(page), reads_all=A_COUNT)
            for currency in (None, "EUR", "USD")
            for page in pages((DATA.users,))
        ),
    ],
    "OwnerQueries.of_orders": [ask(ORDER_IDS[:1]), ask(ORDER_IDS)],
    "OwnerQueries.of_order_numbers": [ask([DATA.order_number(9)])],
    "OwnerQueries.of_notes": [ask([DATA.order_id(ORDER)]), ask(ORDER_IDS)],
    "OwnerQueries.of_emails": [ask(["USER9@example.com"])],
    "OwnerQueries.of_usernames": [ask(["user9"])],
    "MaintenanceQueries.orders_with_expired_holds": [ask(order_time(ORDER))],
    "MaintenanceQueries.users_to_purge": [ask(user_time(USER) + timedelta(days=30))],
    "EventFeed.earliest": [ask()],
    "EventFeed.latest": [ask()],
    "EventFeed.follow": [ask(EventPosition(0, 0), lambda _event: True)],
}


class Volume(NamedTuple):
    """The queries, the plans of what they executed, and the number of rows of each table that grows."""

    readers: dict[str, Any]
    take_explained: Callable[[], list[Explained]]
    rows: Mapping[str, int]


@pytest.fixture(scope="module")
async def volume_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    async with volume_database(postgres_url, template_url) as url:
        yield url


@pytest.fixture(scope="module")
async def rows_of_tables(volume_url: str) -> Mapping[str, int]:
    async with driver_connection(volume_url) as connection:
        found = await connection.fetch("SELECT relname, reltuples::int FROM pg_class WHERE relkind = 'r'")
    return {name: rows for name, rows in found if name in metadata.tables and rows > 1000}


@pytest.fixture(scope="module")
async def volume(volume_url: str, rows_of_tables: Mapping[str, int]) -> AsyncIterator[Volume]:
    settings = load(ServerSettings, DATABASE_URL=volume_url)
    database, feed = Database(settings, MESSAGE_ENCODERS), PollingEventFeed(settings)
    readers = {
        "UserQueries": database.user_queries,
        "OrderQueries": database.order_queries,
        "NoteQueries": database.note_queries,
        "CreditQueries": database.credit_queries,
        "OwnerQueries": database.owner_queries,
        "MaintenanceQueries": database.maintenance_queries,
        "EventFeed": feed,
    }
    with listening_to_new_connections() as take_explained:
        yield Volume(readers, take_explained, rows_of_tables)
    await feed.close()
    await database.close()


def test_every_table_that_grows_has_many_rows(rows_of_tables: Mapping[str, int]) -> None:
    assert set(metadata.tables) == set(rows_of_tables) | SMALL_TABLES


def test_every_method_of_every_port_that_reads_is_asked() -> None:
    protocols = {
        name: kind
        for _, module, _ in pkgutil.iter_modules(ports.__path__, f"{ports.__name__}.")
        for name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if getattr(kind, "_is_protocol", False) and kind.__module__ == module
    }
    assert set(protocols) == READ_PORTS | OTHER_PORTS
    methods = {
        f"{port}.{name}"
        for port in READ_PORTS
        for name, _ in inspect.getmembers(protocols[port], inspect.isfunction)
        if not name.startswith("_")
    }
    # This one reads nothing.
    assert methods - {"EventFeed.watching"} == set(CASES)


@pytest.mark.parametrize("method", CASES)
async def test_a_query_reads_no_more_where_there_is_more(volume: Volume, method: str) -> None:
    port, _, name = method.partition(".")
    question = getattr(volume.readers[port], name)
    wrong = []
    for case in CASES[method]:
        volume.take_explained()
        for _ in range(RUNS):
            await answered(question(*case.arguments, **case.keywords))
        explained = [one for one in volume.take_explained() if tables_of(one) & set(metadata.tables)]
        assert len(explained) >= RUNS, case
        faults = {fault for one in explained for fault in faults_of(one, volume.rows, reads_all=bool(case.reads_all))}
        if faults:
            wrong.append(f"{str(case.arguments)[:300]} {case.keywords}: {', '.join(sorted(faults))}")
    assert not wrong, "\n".join(wrong)


async def test_no_call_reads_a_table_as_a_whole(volume_url: str, rows_of_tables: Mapping[str, int]) -> None:
    with listening_to_new_connections() as take_explained:
        async with serving_clients(volume_url) as clients:
            for method in METHODS:
                request = await GOOD_REQUESTS[method](clients)
                take_explained()
                await call(clients.channel, method, request)
                explained = take_explained()
                assert explained, method
                for one in explained:
                    faults = faults_of(one, rows_of_tables)
                    assert not faults, (method, faults, one.statement)


async def answered(answer: Awaitable[Any] | AsyncGenerator[Any, None]) -> None:
    if isinstance(answer, AsyncGenerator):
        await anext(answer)
        await answer.aclose()
    else:
        await answer


def tables_of(explained: Explained) -> set[str]:
    return {node["Relation Name"] for node in explained.nodes if "Relation Name" in node}


def faults_of(explained: Explained, rows_of_tables: Mapping[str, int], *, reads_all: bool = False) -> list[str]:
    """Return what in a plan takes longer on larger tables; with `reads_all`, what reads rows more than three times."""
    # Temporary files of a sort, a hash or a CTE that did not fit into memory.
    faults = [f"{node['Node Type']} on disk" for node in explained.nodes if node["Temp Written Blocks"]]
    if reads_all:
        looks = Counter[str]()
        for node in explained.nodes:
            looks[node.get("Relation Name", "")] += rows_looked_at(node)
        return faults + [
            f"looks at {looks[table]} rows of {table}"
            for table, rows in rows_of_tables.items()
            if looks[table] > 3 * rows
        ]
    for node in explained.nodes:
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in rows_of_tables:
            faults.append(f"reads all of {node['Relation Name']}")
        # Parallel workers are processes for one call, and a search would find other rows each time.
        if node["Node Type"].startswith("Gather"):
            faults.append("reads in parallel")
    if (looked_at := sum(map(rows_looked_at, explained.nodes))) > MAX_ROWS:
        faults.append(f"looks at {looked_at} rows")
    return faults


def rows_looked_at(node: dict[str, Any]) -> int:
    """Return the number of table rows that a node has read; a bitmap heap scan counts its rows, not its index scan."""
    if "Relation Name" not in node:
        return 0
    looks = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int(looks * node["Actual Loops"])
