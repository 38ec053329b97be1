"""Full-text search for users."""

from sqlalchemy import (
    REAL,
    ColumnElement,
    Integer,
    Select,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    union,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.sql.selectable import CTE

from service.application.ports.queries import MAX_RANKED, Page, PageOfRows
from service.db.reads.columns import USER_COLUMNS
from service.db.reads.ranking import page_of_ranked, ranked_page
from service.db.reads.reader import Reader
from service.db.tables import users
from service.domain.search import SearchQuery
from service.domain.text import folded
from service.domain.users import UserState

_SIMPLE: ColumnElement[str] = literal_column("'pg_catalog.simple'::regconfig")
# Subqueries, so that the planner does not see the words: for common words it would read the whole table.
_MATCHING = select(func.to_tsquery(_SIMPLE, bindparam("matching"), type_=TSQUERY)).scalar_subquery()
_WHOLE = select(func.to_tsquery(_SIMPLE, bindparam("whole"), type_=TSQUERY)).scalar_subquery()
_IS_USERNAME = users.c.username == bindparam("username")
# A match of a whole word adds to the rank of a match of its prefix. A user whose username equals the query comes first.
_RANK = func.ts_rank(users.c.search, _MATCHING) + func.ts_rank(users.c.search, _WHOLE) + cast(_IS_USERNAME, Integer)
_MATCHES = users.c.search.op("@@")(_MATCHING)


def _ranked(*, show_deleted: bool) -> CTE:
    found = select(users.c.id, cast(_RANK, REAL).label("rank")).where(_MATCHES)
    if not show_deleted:
        found = found.where(users.c.state != UserState.DELETED)
    # The second part of the union ensures that the limit never excludes the user with this username.
    return union(found.limit(MAX_RANKED), found.where(_IS_USERNAME)).cte("ranked")


def _search(page: Page, *, show_deleted: bool) -> Select[tuple[object, ...]]:
    part, found, count = ranked_page(_ranked(show_deleted=show_deleted), page)
    rows = part.outerjoin(users, users.c.id == found.c.id)
    columns = (*USER_COLUMNS, found.c.rank, count.c.matches)
    return select(*columns).select_from(rows).order_by(found.c.rank.desc(), found.c.id.desc())


async def search_users(reader: Reader, query: SearchQuery, page: Page, *, show_deleted: bool) -> PageOfRows:
    """Return a page of matches, as `service.application.ports.queries.UserQueries.search` documents."""
    whole = " & ".join(f"'{word}'" for word in query.words)
    values = {"whole": whole, "matching": f"{whole}:*", "username": folded(query.text)}
    rows = await reader.all(_search(page, show_deleted=show_deleted), values)
    return page_of_ranked(rows, page)
