"""Pages of search results, best match first.

The work is bounded for any words: the index returns the matches, and the first `MAX_RANKED` of them are read and
ranked. Reading all matches of a common word would take seconds, and no index orders matches by rank.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select, true, tuple_
from sqlalchemy.sql.selectable import CTE, Join, Subquery

from service.application.ports.queries import MAX_RANKED, Page, PageOfRows


def ranked_page(ranked: CTE, page: Page) -> tuple[Join, Subquery, Subquery]:
    """Return the join of a page of matches with the number of all matches, then both parts of the join.

    The page has the columns `id` and `rank`, the number is `matches`. The join has a row even if the page has none. A
    caller joins further tables with the page only.

    Args:
        ranked: the matches, by `id` and `rank`.
        page: which part of them.
    """
    keys = (ranked.c.rank, ranked.c.id)
    rows = select(*keys).order_by(*(key.desc() for key in keys)).limit(page.size + 1)
    if page.after is not None:
        rows = rows.where(tuple_(*keys) < tuple_(*page.after, types=[key.type for key in keys]))
    found = rows.subquery("found")
    count = select(func.count().label("matches")).select_from(ranked).subquery("count")
    return count.outerjoin(found, true()), found, count


def page_of_ranked(rows: Sequence[Row[Any]], page: Page) -> PageOfRows:
    """Return the rows of such a statement as a page; a row whose `id` is null has only the number of matches."""
    found = [row for row in rows if row.id is not None]
    return PageOfRows(found[: page.size], len(found) > page.size, min(rows[0].matches, MAX_RANKED))
