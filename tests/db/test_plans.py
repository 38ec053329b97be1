"""Every query of the read side where there are many rows: what it reads does not grow with their number."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import pytest

from service.application import ports
from service.application.ports import (
    MAX_RANKED,
    NoteFilter,
    OrderFilter,
    Page,
    Place,
    TopUsers,
    UserFilter,
)
from service.config import ServerSettings, load
from service.db.store import Store
from service.db.tables import metadata
from service.db.tail import EventTail
from service.domain.orders import OrderStatus
from service.domain.search import SearchQuery
from service.domain.users import UserState
from tests.conftest import running_server
from tests.support import connect, driver_connection
from tests.volume import BUSY_ORDER, DATA, WHOLESALER, Explained, listening_to_new_connections, volume_database
from tests.wire import GOOD_REQUESTS, METHODS, call

READ_PORTS = {"UserQueries", "OrderQueries", "NoteQueries", "CreditQueries", "MaintenanceQueries", "EventFeed"}
OTHER_PORTS = {
    "UserRepository",
    "OrderRepository",
    "NoteRepository",
    "CreditRepository",
    "UnitOfWork",
    "UnitOfWorkFactory",
    "TimeLeft",
    # These give the queries above.
    "Snapshot",
    "Snapshots",
    "Passwords",
}
# Have a row for each process, database or relay.
SMALL_TABLES = {"signing_keys", "swept_events", "relay_cursors"}
# PostgreSQL decides after a statement's fifth run whether to plan it for its values or for all.
RUNS = 7
# What a search may rank, and a page of a thousand with what belongs to it. Every table has more.
MAX_ROWS = MAX_RANKED + 5000
ON_DISK = "on disk"
A_COUNT = "a total_size counts everything that it is the size of"
A_SUM = "statistics are sums over everything that they are asked for"
COUNTS_OF_TAGS = "each tag has the number of its orders"


class Case(NamedTuple):
    """A question, and why it may read as much as there is; empty where it may not."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    reads_all: str = ""


def ask(*arguments: Any, reads_all: str = "", **keywords: Any) -> Case:
    return Case(arguments, keywords, reads_all)


def user_time(user: int) -> datetime:
    return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=user)


def order_time(order: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=order)


USER, ORDER = DATA.users // 2, DATA.orders // 2
USER_ID, ORDER_ID = UUID(DATA.user_id(USER)), UUID(DATA.order_id(ORDER))
WHOLESALER_ID, BUSY_ORDER_ID = UUID(DATA.user_id(WHOLESALER)), UUID(DATA.order_id(BUSY_ORDER))
MANY_USER_IDS = [UUID(DATA.user_id(number)) for number in range(1, DATA.users, DATA.users // 1000)]
MANY_ORDER_IDS = [UUID(DATA.order_id(number)) for number in range(1, DATA.orders, DATA.orders // 1000)]
AFTER_A_USER, AFTER_AN_ORDER = (user_time(USER), USER_ID), (order_time(ORDER), ORDER_ID)
TOP = TopUsers(more_than=10, limit=10)


def pages(after: tuple[Any, ...]) -> Iterator[Page]:
    """Yield the first page, one in the middle, and the largest."""
    yield Page(50, None, include_total_size=False)
    yield Page(50, after, include_total_size=False)
    yield Page(1000, after, include_total_size=False)


def with_total(page: Page) -> Page:
    return replace(page, include_total_size=True)


ANY_USER = UserFilter(states=None, created_from=None, created_before=None, superuser=None)
ONE_DAY_OF_USERS = {"created_from": user_time(USER), "created_before": user_time(USER + 100)}
USER_FILTERS = (
    ANY_USER,
    replace(ANY_USER, states=[UserState.ACTIVE, UserState.INACTIVE]),
    replace(ANY_USER, states=[UserState.INACTIVE]),
    replace(ANY_USER, states=[UserState.DELETED]),
    replace(ANY_USER, states=[UserState.INACTIVE, UserState.DELETED]),
    replace(ANY_USER, superuser=True),
    replace(ANY_USER, superuser=False),
    replace(ANY_USER, states=[UserState.ACTIVE], superuser=True),
    replace(ANY_USER, **ONE_DAY_OF_USERS),
    replace(ANY_USER, states=[UserState.INACTIVE], **ONE_DAY_OF_USERS),
    replace(ANY_USER, created_from=user_time(1000)),
    replace(ANY_USER, created_before=user_time(USER)),
)

ANY_ORDER = OrderFilter(user_id=None, statuses=None, created_from=None, created_before=None, tags_any=(), tags_all=())
PENDING, DELIVERED = [OrderStatus.PENDING], [OrderStatus.DELIVERED, OrderStatus.CANCELLED]
OPEN = [OrderStatus.PENDING, OrderStatus.CONFIRMED, OrderStatus.PROCESSING]
ONE_DAY_OF_ORDERS = {"created_from": order_time(ORDER), "created_before": order_time(ORDER + 100)}
ORDER_FILTERS = (
    ANY_ORDER,
    replace(ANY_ORDER, statuses=PENDING),
    replace(ANY_ORDER, statuses=OPEN),
    replace(ANY_ORDER, statuses=DELIVERED),
    replace(ANY_ORDER, **ONE_DAY_OF_ORDERS),
    replace(ANY_ORDER, statuses=PENDING, **ONE_DAY_OF_ORDERS),
    replace(ANY_ORDER, created_from=order_time(ORDER)),
    replace(ANY_ORDER, created_before=order_time(ORDER)),
    replace(ANY_ORDER, tags_any=["tag-1"]),
    replace(ANY_ORDER, tags_any=["tag-1", "tag-2", "nobody"]),
    replace(ANY_ORDER, tags_all=["tag-1", "tag-2"]),
    replace(ANY_ORDER, tags_any=["tag-1"], statuses=PENDING),
)
TAGS_OF_MANY_ORDERS = (
    replace(ANY_ORDER, tags_any=["common"]),
    replace(ANY_ORDER, tags_any=["tag-1", "common"]),
    replace(ANY_ORDER, tags_any=["common"], statuses=PENDING),
    replace(ANY_ORDER, tags_any=["common"], **ONE_DAY_OF_ORDERS),
    replace(ANY_ORDER, tags_all=["common"]),
    replace(ANY_ORDER, tags_all=["common", "tag-5"]),
    replace(ANY_ORDER, tags_any=["tag-5", "tag-10"], tags_all=["common"]),
)
OF_USERS = tuple(
    replace(filtered, user_id=user_id) for user_id in (USER_ID, WHOLESALER_ID) for filtered in ORDER_FILTERS
)

ANY_NOTE = NoteFilter(order_id=None, author_id=None, include_drafts=False)
NOTE_FILTERS = (
    replace(ANY_NOTE, order_id=ORDER_ID),
    replace(ANY_NOTE, author_id=USER_ID),
    replace(ANY_NOTE, author_id=WHOLESALER_ID),
    replace(ANY_NOTE, order_id=ORDER_ID, author_id=USER_ID),
    replace(ANY_NOTE, author_id=WHOLESALER_ID, include_drafts=True),
)

CASES: dict[str, Sequence[Case]] = {
    "UserQueries.by_ids": [ask([USER_ID]), ask(MANY_USER_IDS)],
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
        *(
            ask(where, "NEWEST", with_total(page), reads_all=A_COUNT)
            for where in USER_FILTERS
            for page in pages(AFTER_A_USER)
        ),
    ],
    "UserQueries.search": [
        ask(SearchQuery.parse(words, "query"), Page(50, after, include_total_size=False), show_deleted=show_deleted)
        for words in ("user 77", "Ada Turing", "ada", "collects part number", "c", "nobody")
        for after in (None, (0.05, USER_ID))
        for show_deleted in (False, True)
    ],
    "UserQueries.credentials": [ask(email="USER9@example.com"), ask(username="user9")],
    "OrderQueries.by_ids": [ask([ORDER_ID]), ask(MANY_ORDER_IDS)],
    "OrderQueries.by_number": [ask(DATA.order_number(9)), ask("ORD-0")],
    "OrderQueries.page": [
        *(
            ask(where, order_by, page)
            for where in (*ORDER_FILTERS, *OF_USERS)
            for order_by in ("NEWEST", "OLDEST")
            for page in pages(AFTER_AN_ORDER)
        ),
        *(
            ask(where, "NEWEST", with_total(Page(50, AFTER_AN_ORDER, include_total_size=True)), reads_all=A_COUNT)
            for where in (*ORDER_FILTERS, *TAGS_OF_MANY_ORDERS)
        ),
    ],
    "OrderQueries.statistics": [
        ask(replace(ANY_ORDER, user_id=USER_ID), TOP),
        ask(replace(ANY_ORDER, **ONE_DAY_OF_ORDERS), TOP),
        ask(replace(ANY_ORDER, tags_all=["tag-1"]), TOP),
        ask(ANY_ORDER, TOP, reads_all=A_SUM),
        ask(replace(ANY_ORDER, statuses=PENDING), TOP, reads_all=A_SUM),
    ],
    "OrderQueries.events": [
        *(ask(order_id, page) for order_id in (ORDER_ID, BUSY_ORDER_ID) for page in pages((DATA.orders,))),
        *(ask(BUSY_ORDER_ID, with_total(page)) for page in pages((DATA.orders,))),
    ],
    "OrderQueries.tags": [
        *(ask("tag-1", page) for page in pages(("tag-12",))),
        *(ask("tag-1", with_total(page)) for page in pages(("tag-12",))),
        *(ask("", page, reads_all=COUNTS_OF_TAGS) for page in pages(("tag-12",))),
    ],
    "NoteQueries.page": [
        *(ask(where, page) for where in NOTE_FILTERS for page in pages(AFTER_AN_ORDER)),
        *(ask(where, with_total(page)) for where in NOTE_FILTERS for page in pages(AFTER_AN_ORDER)),
    ],
    "NoteQueries.search": [
        ask(words, where, Page(50, after, include_total_size=total))
        for words in ("thing7", "part9 or part10", '"word about thing7"', "common", "common -thing7", "nobody")
        for where in (ANY_NOTE, replace(ANY_NOTE, include_drafts=True), *NOTE_FILTERS)
        for after in (None, (0.05, ORDER_ID))
        for total in (False, True)
    ],
    "CreditQueries.balances": [ask(USER_ID)],
    "CreditQueries.entries": [
        ask(user_id, currency, with_total(page) if total else page)
        for user_id in (USER_ID, WHOLESALER_ID)
        for currency in (None, "EUR", "USD")
        for page in pages((DATA.users,))
        for total in (False, True)
    ],
    "MaintenanceQueries.orders_with_expired_holds": [ask(order_time(ORDER))],
    "MaintenanceQueries.users_to_purge": [ask(user_time(USER) + timedelta(days=30))],
    "EventFeed.earliest": [ask()],
    "EventFeed.latest": [ask()],
    "EventFeed.follow": [ask(Place(0, 0), lambda _event: True)],
}


class Volume(NamedTuple):
    """What is asked, what was done for it, and the tables with many rows."""

    readers: dict[str, Any]
    take_explained: Callable[[], list[Explained]]
    large_tables: Collection[str]


@pytest.fixture(scope="module")
async def volume_url(postgres_url: str, template_url: str) -> AsyncIterator[str]:
    async with volume_database(postgres_url, template_url) as url:
        yield url


@pytest.fixture(scope="module")
async def large_tables(volume_url: str) -> Collection[str]:
    async with driver_connection(volume_url) as connection:
        rows = await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 1000")
    return {row["relname"] for row in rows} & set(metadata.tables)


@pytest.fixture(scope="module")
async def volume(volume_url: str, large_tables: Collection[str]) -> AsyncIterator[Volume]:
    settings = load(ServerSettings, DATABASE_URL=volume_url)
    store, tail = Store(settings), EventTail(settings)
    readers = {
        "UserQueries": store.user_queries,
        "OrderQueries": store.order_queries,
        "NoteQueries": store.note_queries,
        "CreditQueries": store.credit_queries,
        "MaintenanceQueries": store.maintenance_queries,
        "EventFeed": tail,
    }
    with listening_to_new_connections() as take_explained:
        yield Volume(readers, take_explained, large_tables)
    await tail.close()
    await store.close()


def test_every_table_that_grows_has_many_rows(large_tables: Collection[str]) -> None:
    assert set(metadata.tables) - SMALL_TABLES == large_tables


def test_every_method_of_every_port_that_reads_is_asked() -> None:
    found = {
        name
        for name, kind in inspect.getmembers(ports, inspect.isclass)
        if issubclass(kind, Protocol) and kind.__module__ == ports.__name__  # type: ignore[arg-type] # a class at run time
    }
    assert found == READ_PORTS | OTHER_PORTS
    methods = {
        f"{port}.{name}"
        for port in READ_PORTS
        for name, _ in inspect.getmembers(getattr(ports, port), inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods == set(CASES)


@pytest.mark.parametrize("method", CASES)
async def test_a_query_reads_no_more_where_there_is_more(volume: Volume, method: str) -> None:
    port, _, name = method.partition(".")
    question = getattr(volume.readers[port], name)
    wrong = []
    for case in CASES[method]:
        volume.take_explained()
        for _ in range(RUNS):
            answer = question(*case.arguments, **case.keywords)
            if isinstance(answer, AsyncGenerator):
                await anext(answer)
                await answer.aclose()
            else:
                await answer
        explained = [one for one in volume.take_explained() if tables_of(one) & set(metadata.tables)]
        assert len(explained) >= RUNS, case
        faults = {fault for one in explained for fault in faults_of(one, volume.large_tables)}
        if case.reads_all:
            faults = {fault for fault in faults if fault.endswith(ON_DISK)}
        if faults:
            wrong.append(f"{case.arguments} {case.keywords}: {', '.join(sorted(faults))}")
    assert not wrong, "\n".join(wrong)


async def test_no_call_reads_a_table_as_a_whole(volume_url: str, large_tables: Collection[str]) -> None:
    with listening_to_new_connections() as take_explained:
        async with running_server(volume_url) as server, connect(server.port) as clients:
            for method in METHODS:
                request = await GOOD_REQUESTS[method](clients)
                take_explained()
                await call(clients.channel, method, request)
                explained = take_explained()
                assert explained, method
                for one in explained:
                    wrong = faults_of(one, large_tables)
                    assert not wrong, (method, wrong, one)


def tables_of(explained: Explained) -> set[str]:
    return {node["Relation Name"] for node in explained.nodes if "Relation Name" in node}


def faults_of(explained: Explained, large_tables: Collection[str]) -> list[str]:
    """Return what a statement does that takes longer the more rows there are."""
    nodes = explained.nodes
    faults = [
        f"reads all of {node['Relation Name']}"
        for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in large_tables
    ]
    # Of a sort, a hash or a CTE for which the memory was not enough.
    faults += [f"{node['Node Type']} {ON_DISK}" for node in nodes if node["Temp Written Blocks"]]
    # Processes of its own for one call: and a search would find something else each time.
    faults += ["parallel" for node in nodes if node["Node Type"].startswith("Gather")]
    rows = sum(rows_read(node) for node in nodes)
    if rows > MAX_ROWS:
        faults.append(f"reads {rows:.0f} rows")
    return faults


def rows_read(node: dict[str, Any]) -> float:
    """Return how many rows of a table a node has looked at; a bitmap of them is as cheap as the index that it is of."""
    if "Relation Name" not in node:
        return 0
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float(rows * node["Actual Loops"])
