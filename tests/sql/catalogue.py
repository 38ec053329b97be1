"""Every fixed statement of the service, by name, and examples of those that are built for a request."""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql import asyncpg

from service import db
from service.application.ports.queries import (
    NoteFilter,
    OrderFilter,
    OrderOrder,
    Page,
    TopUsers,
    UserFilter,
    UserOrder,
)
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.connections.statement import Statement
from service.db.events import log, relay_cursor
from service.db.operations import ledger, retention
from service.db.reads.credit import CreditQueries
from service.db.reads.maintenance import MaintenanceQueries
from service.db.reads.notes import NoteQueries
from service.db.reads.orders import OrderQueries
from service.db.reads.reader import Reader
from service.db.reads.users import UserQueries
from service.db.writes.fast_path.order_statements import changing_many, changing_one, placing_many, placing_one
from service.domain.orders import OPEN_STATUSES, OrderStatus
from service.domain.search import NoteQuery, SearchQuery
from service.domain.users import UserState
from tests.sql.formatting import format_sql

_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call] # has no types
_ID, _TIME = UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC)
_FIRST = Page(50, None, include_total_size=False)
_COUNTED = Page(50, None, include_total_size=True)
_TOP = TopUsers(more_than=10, limit=10)


def _next(*position: object) -> Page:
    return Page(50, position, include_total_size=False)


def _users(**fields: Any) -> UserFilter:
    return UserFilter(**{"states": None, "created_from": None, "created_before": None, "superuser": None, **fields})


def _orders(**fields: Any) -> OrderFilter:
    nothing = {"user_id": None, "statuses": None, "created_from": None, "created_before": None}
    return OrderFilter(**{**nothing, "tags_any": (), "tags_all": (), **fields})


def _notes(**fields: Any) -> NoteFilter:
    return NoteFilter(**{"order_id": None, "author_id": None, "include_drafts": False, **fields})


class Question(NamedTuple):
    """A call of the read side."""

    method: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


def _ask(method: str, *arguments: Any, **keywords: Any) -> Question:
    return Question(method, arguments, keywords)


_WORDS = SearchQuery.parse("ada love", "query")
_NOTE_WORDS = NoteQuery.parse("fragile", "query")
# By the name of the statement that each executes. What comes after the dot tells examples of one statement apart.
QUESTIONS: dict[str, Question] = {
    "user_by_email": _ask("UserQueries.by_email", "a@example.com"),
    "user_by_username": _ask("UserQueries.by_username", "ada"),
    "known_emails": _ask("UserQueries.known_emails", ["a@example.com"]),
    "credentials.by_email": _ask("UserQueries.credentials", email="a@example.com"),
    "credentials.by_username": _ask("UserQueries.credentials", username="ada"),
    "list_users.newest": _ask(
        "UserQueries.page", _users(states=[UserState.ACTIVE, UserState.INACTIVE]), UserOrder.NEWEST, _FIRST
    ),
    "list_users.newest_next_page": _ask(
        "UserQueries.page", _users(states=[UserState.ACTIVE]), UserOrder.NEWEST, _next(_TIME, _ID)
    ),
    "list_users.oldest_of_an_interval": _ask(
        "UserQueries.page", _users(created_from=_TIME, created_before=_TIME), UserOrder.OLDEST, _FIRST
    ),
    "list_users.superusers_by_username": _ask(
        "UserQueries.page", _users(superuser=True), UserOrder.USERNAME, _next("ada")
    ),
    "list_users.with_total_size": _ask("UserQueries.page", _users(), UserOrder.NEWEST, _COUNTED),
    "search_users": _ask("UserQueries.search", _WORDS, _FIRST, show_deleted=False),
    "search_users.next_page_with_deleted": _ask("UserQueries.search", _WORDS, _next(0.5, _ID), show_deleted=True),
    "order_by_number": _ask("OrderQueries.by_number", "ORD-1"),
    "list_orders.newest": _ask("OrderQueries.page", _orders(), OrderOrder.NEWEST, _FIRST),
    "list_orders.newest_next_page": _ask("OrderQueries.page", _orders(), OrderOrder.NEWEST, _next(_TIME, _ID)),
    "list_orders.oldest_of_an_interval": _ask(
        "OrderQueries.page", _orders(created_from=_TIME, created_before=_TIME), OrderOrder.OLDEST, _FIRST
    ),
    "list_orders.of_a_user": _ask("OrderQueries.page", _orders(user_id=_ID), OrderOrder.NEWEST, _FIRST),
    "list_orders.of_a_status": _ask(
        "OrderQueries.page", _orders(statuses=[OrderStatus.DELIVERED]), OrderOrder.NEWEST, _FIRST
    ),
    "list_orders.open": _ask("OrderQueries.page", _orders(statuses=OPEN_STATUSES), OrderOrder.NEWEST, _FIRST),
    "list_orders.with_any_tag": _ask("OrderQueries.page", _orders(tags_any=["a", "b"]), OrderOrder.NEWEST, _FIRST),
    "list_orders.with_all_tags": _ask("OrderQueries.page", _orders(tags_all=["a", "b"]), OrderOrder.NEWEST, _FIRST),
    "list_orders.with_any_and_all_tags_next_page": _ask(
        "OrderQueries.page", _orders(tags_any=["a", "b"], tags_all=["c"]), OrderOrder.NEWEST, _next(_TIME, _ID)
    ),
    "list_orders.of_a_user_with_all_tags": _ask(
        "OrderQueries.page", _orders(user_id=_ID, tags_all=["a"]), OrderOrder.NEWEST, _FIRST
    ),
    "list_orders.with_total_size": _ask("OrderQueries.page", _orders(), OrderOrder.NEWEST, _COUNTED),
    "order_statistics": _ask("OrderQueries.statistics", _orders(created_from=_TIME), _TOP),
    "order_events": _ask("OrderQueries.events", _ID, _FIRST),
    "order_events.next_page": _ask("OrderQueries.events", _ID, _next(1)),
    "order_events.with_total_size": _ask("OrderQueries.events", _ID, _COUNTED),
    "list_tags": _ask("OrderQueries.tags", "", _FIRST),
    "list_tags.next_page_with_a_prefix": _ask("OrderQueries.tags", "a", _next("ab")),
    "list_notes.of_an_order": _ask("NoteQueries.page", _notes(order_id=_ID), _FIRST),
    "list_notes.of_an_author_with_drafts_next_page": _ask(
        "NoteQueries.page", _notes(author_id=_ID, include_drafts=True), _next(_TIME, _ID)
    ),
    "search_notes": _ask("NoteQueries.search", _NOTE_WORDS, _notes(), _FIRST),
    "search_notes.of_an_order_next_page": _ask(
        "NoteQueries.search", _NOTE_WORDS, _notes(order_id=_ID), _next(0.5, _ID)
    ),
    "credit_balances": _ask("CreditQueries.balances", _ID),
    "credit_entries": _ask("CreditQueries.entries", _ID, None, _FIRST),
    "credit_entries.of_a_currency_next_page": _ask("CreditQueries.entries", _ID, "EUR", _next(1)),
    "orders_with_expired_holds": _ask("MaintenanceQueries.orders_with_expired_holds", _TIME),
    "users_to_purge": _ask("MaintenanceQueries.users_to_purge", _TIME),
    "batch_of_users": _ask("UserQueries.by_ids", [str(_ID)]),
    "batch_of_orders": _ask("OrderQueries.by_ids", [str(_ID)]),
}
QUERIES: tuple[type, ...] = (UserQueries, OrderQueries, NoteQueries, CreditQueries, MaintenanceQueries)
# Read through a batched loader.
BATCHED = {"UserQueries.by_id", "OrderQueries.by_id"}

_OTHERS: dict[str, Executable] = {
    "events_page": log.PAGE,
    "events_earliest": log.EARLIEST,
    "events_latest": log.LATEST,
    "relay_lock": relay_cursor.LOCK,
    "relay_create_cursor": relay_cursor.CREATE_CURSOR,
    "relay_cursor": relay_cursor.CURSOR,
    "relay_advance": relay_cursor.ADVANCE,
    "retention_delete_request_ids": retention.DELETE_REQUEST_IDS,
    "retention_delete_sign_in_attempts": retention.DELETE_SIGN_IN_ATTEMPTS,
    "retention_deleted_up_to": retention.DELETED_UP_TO,
    "retention_relays": retention.RELAYS,
    "retention_next_events": retention.NEXT_EVENTS,
    "retention_delete_events": retention.DELETE_EVENTS,
    "retention_advance_deleted_up_to": retention.ADVANCE_DELETED_UP_TO,
    "ledger_differences": ledger.DIFFERENCES,
}
_FAST_PATH = (
    placing_one(claims=False),
    placing_one(claims=True),
    placing_many(),
    changing_one(claims=False),
    changing_one(claims=True),
    changing_many(),
)


async def catalogue() -> dict[str, Executable]:
    """Return all statements by name."""
    asked = {name: await _statement_for(question) for name, question in QUESTIONS.items()}
    return {**{statement.name: statement.core for statement in compiled_statements()}, **_OTHERS, **asked}


def compiled_statements() -> list[Statement]:
    """Return the statements that are compiled when the service starts, and those of the fast path."""
    names = [module.name for module in pkgutil.walk_packages(db.__path__, f"{db.__name__}.")]
    members = [member for name in names for member in vars(importlib.import_module(name)).values()]
    return [*(member for member in members if isinstance(member, Statement)), *_FAST_PATH]


def compiled(statement: Any) -> Any:
    """Return a statement compiled as it is before it is executed."""
    found = statement.compile(dialect=_DIALECT)
    if "POSTCOMPILE" not in str(found):
        return found
    # SQLAlchemy writes the parameters of IN when it knows all values.
    values = {name: None for name, parameter in found.binds.items() if parameter.required}
    return statement.params(values).compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})


def readable(name: str, statement: Executable) -> str:
    """Return the content of a statement's golden file: its name, its parameters' names, and its text."""
    found = compiled(statement)
    parameters = [f"-- ${number}: {parameter}\n" for number, parameter in enumerate(found.positiontup or (), 1)]
    return f"-- {name}\n{''.join(parameters)}{format_sql(str(found))}\n"


class _Asked(Exception):
    """Ends a call of the read side when it has a statement to execute."""

    def __init__(self, statement: Executable) -> None:
        super().__init__()
        self.statement = statement


class _Listener(Reader):
    """Executes no statement."""

    def __init__(self) -> None:
        super().__init__(create_engine(load(DatabaseSettings, DATABASE_URL="postgresql://localhost/none"), pool_size=1))

    async def all(self, statement: Any, values: Any = None, *, expensive: Any = None) -> Any:  # noqa: ARG002
        raise _Asked(statement.core if isinstance(statement, Statement) else statement)


async def _statement_for(question: Question) -> Executable:
    kind, _, method = question.method.partition(".")
    queries = {queries.__name__: queries for queries in QUERIES}[kind](_Listener())
    answer: Callable[..., Awaitable[Any]] = getattr(queries, method)
    try:
        await answer(*question.arguments, **question.keywords)
    except _Asked as asked:
        return asked.statement
    raise AssertionError(f"{question.method} executes no statement")
