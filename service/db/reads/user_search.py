"""Full-text search for users."""

from functools import cache

from sqlalchemy import (
    REAL,
    ColumnElement,
    FromClause,
    Integer,
    bindparam,
    cast,
    literal_column,
    select,
    union,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.sql.selectable import CTE

from service.application.ports.queries import MAX_RANKED, Page, PageOfRows
from service.db.connections.expensive_reads import Expensive
from service.db.connections.statement import Statement
from service.db.reads.columns import USER_COLUMNS, user_size
from service.db.reads.ranking import page_of_ranked, page_values, ranked_page
from service.db.reads.reader import Reader, limited_by_size
from service.db.tables import users
from service.db.text_search import rank, users_query
from service.domain.search import SearchQuery
from service.domain.text import folded
from service.domain.users import UserState

# Subqueries, so that the planner does not see the words: for common words it would read the whole table.
_MATCHING = select(cast(bindparam("matching"), TSQUERY)).scalar_subquery()
_WHOLE = select(cast(bindparam("whole"), TSQUERY)).scalar_subquery()
_IS_USERNAME = users.c.username == bindparam("username")
# A match of a whole word with the same accents adds to the rank of a match of its prefix. A user whose username equals
# the query comes first.
_RANK = rank(users.c.search, _MATCHING) + rank(users.c.search, _WHOLE) + cast(_IS_USERNAME, Integer)
_MATCHES = users.c.search.op("@@")(_MATCHING)


def _ranked(*, show_deleted: bool) -> CTE:
    found = select(users.c.id, cast(_RANK, REAL).label("rank")).where(_MATCHES)
    if not show_deleted:
        found = found.where(users.c.state != UserState.DELETED)
    # The second part of the union ensures that the limit never excludes the user with this username.
    return union(found.limit(MAX_RANKED), found.where(_IS_USERNAME)).cte("ranked")


@cache
def _statement(*, first: bool, show_deleted: bool) -> Statement:
    part, found, count = ranked_page(_ranked(show_deleted=show_deleted), first=first)
    rows = part.outerjoin(users, users.c.id == found.c.id)
    columns = (*USER_COLUMNS, found.c.rank, count.c.matches)
    statement = select(*columns).select_from(rows)
    limited = limited_by_size(statement, _result_size, (found.c.rank, found.c.id), descending=True)
    return Statement("search_users", limited)


def _result_size(row: FromClause) -> ColumnElement[int]:
    # With the rank, and the tag and length of the user.
    return user_size(row) + literal_column("15", Integer)


async def search_users(reader: Reader, query: SearchQuery, page: Page, *, show_deleted: bool) -> PageOfRows:
    """Return a page of matches, as `service.application.ports.queries.UserQueries.search` documents."""
    matching = users_query(query, last_is_prefix=True, accents=False)
    whole = users_query(query, last_is_prefix=False, accents=True)
    values = {"whole": whole, "matching": matching, "username": folded(query.text)}
    statement = _statement(first=page.after is None, show_deleted=show_deleted)
    rows = await reader.all(statement, values | page_values(page), expensive=Expensive.SEARCH)
    return page_of_ranked(rows, page)
