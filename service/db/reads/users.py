"""The read side of users; `service.application.ports.queries.UserQueries` documents each method."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Row, Text, any_, bindparam, collate, func, select

from service.application.ports.queries import MAX_PAGE_BYTES, Credentials, Page, PageOfRows, UserFilter, UserOrder
from service.db.arrays import is_one_of
from service.db.connections.statement import Statement
from service.db.reads.columns import USER_COLUMNS, user_size
from service.db.reads.reader import Reader, limited_by_size, page_select
from service.db.reads.user_search import search_users
from service.db.tables import user_passwords, users
from service.db.types import EnumText
from service.domain.search import SearchQuery
from service.domain.text import folded
from service.domain.users import UserState

_USERS = select(*USER_COLUMNS)
_BY_IDS = Statement("users_by_ids", _USERS.where(is_one_of(users.c.id, "ids")))
_BATCH = Statement("batch_of_users", limited_by_size(_USERS.where(is_one_of(users.c.id, "ids")), user_size))
# As `folded` in Python, in every locale; the parameters are folded there.
folded_email = func.lower(collate(users.c.email, "C"))
_EMAIL = folded_email == bindparam("email")
_USERNAME = users.c.username == bindparam("username")
_BY_EMAIL = Statement("user_by_email", _USERS.where(_EMAIL))
_BY_USERNAME = Statement("user_by_username", _USERS.where(_USERNAME))
_KNOWN_EMAILS = select(folded_email.label("email")).where(folded_email == any_(bindparam("emails", type_=ARRAY(Text))))
_WITH_PASSWORD = _USERS.add_columns(user_passwords.c.password_hash).join(user_passwords)

_KEYS = {
    UserOrder.NEWEST: (users.c.create_time, users.c.id),
    UserOrder.OLDEST: (users.c.create_time, users.c.id),
    UserOrder.USERNAME: (users.c.username,),
}

# The conditions that a list can have, by name; most have a parameter of the same name.
_CONDITIONS: Mapping[str, ColumnElement[bool]] = {
    # Separate from `states`, because for a single state PostgreSQL can read an index in the order of the list.
    "state": users.c.state == bindparam("state"),
    "states": users.c.state == any_(bindparam("states", type_=ARRAY(EnumText(UserState)))),
    "created_from": users.c.create_time >= bindparam("created_from"),
    "created_before": users.c.create_time < bindparam("created_before"),
    "superuser": users.c.superuser,
    "not_superuser": ~users.c.superuser,
}


@cache
def _page_statement(names: tuple[str, ...], order_by: UserOrder, *, first: bool, include_total_size: bool) -> Statement:
    """Return the statement for all lists with these conditions in this order, compiled once."""
    page = page_select(
        _USERS.where(*(_CONDITIONS[name] for name in names)),
        _KEYS[order_by],
        first=first,
        include_total_size=include_total_size,
        descending=order_by == UserOrder.NEWEST,
        size=user_size,
    )
    return Statement("list_users", page)


class UserQueries:
    """Implements `service.application.ports.queries.UserQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._by_id = reader.batched_loader(_BY_IDS, "ids")

    async def by_id(self, user_id: str) -> Row[Any] | None:
        """Return the user with this id, in lower case."""
        user: Row[Any] | None = await self._by_id(user_id)
        return user

    async def by_ids(self, user_ids: Sequence[str], max_bytes: int | None = MAX_PAGE_BYTES) -> Sequence[Row[Any]]:
        """Return the users with these ids, in any order; the sizes of their messages have a limit, or none."""
        if max_bytes is None:
            return await self._reader.all(_BY_IDS, {"ids": user_ids})
        return await self._reader.all(_BATCH, {"ids": user_ids, "max_bytes": max_bytes})

    async def by_email(self, email: str) -> Row[Any] | None:
        """Return the user with this e-mail address, ignoring case."""
        return await self._reader.first(_BY_EMAIL, {"email": folded(email)})

    async def by_username(self, username: str) -> Row[Any] | None:
        """Return the user with this username, ignoring case."""
        return await self._reader.first(_BY_USERNAME, {"username": folded(username)})

    async def known_emails(self, emails: Sequence[str]) -> Collection[str]:
        """Return the given e-mail addresses that users have, ignoring case, in lower case."""
        return [row.email for row in await self._reader.all(_KNOWN_EMAILS, {"emails": emails})]

    async def page(self, where: UserFilter, order_by: UserOrder, page: Page) -> PageOfRows:
        """Return a page of users."""
        values: dict[str, object] = {"created_from": where.created_from, "created_before": where.created_before}
        names = [name for name, value in values.items() if value is not None]
        if where.states is not None:
            names.append("state" if len(where.states) == 1 else "states")
            values |= {"state": where.states[0], "states": where.states}
        if where.superuser is not None:
            names.append("superuser" if where.superuser else "not_superuser")
        statement = _page_statement(
            tuple(names), order_by, first=page.after is None, include_total_size=page.include_total_size
        )
        return await self._reader.compiled_page(statement, page, values)

    async def search(self, query: SearchQuery, page: Page, *, show_deleted: bool) -> PageOfRows:
        """Return a page of the users that match the words, best match first."""
        return await search_users(self._reader, query, page, show_deleted=show_deleted)

    async def credentials(self, *, email: str | None = None, username: str | None = None) -> Credentials | None:
        """Return the user with this e-mail address or username, with the password hash."""
        if email is not None:
            row = await self._reader.first(_WITH_PASSWORD.where(_EMAIL), {"email": folded(email)})
        else:
            row = await self._reader.first(_WITH_PASSWORD.where(_USERNAME), {"username": folded(username or "")})
        return Credentials(row, row.password_hash) if row else None
