"""Pages of what a search finds, best first.

Work is bounded whatever the words: the index gives the matches, of which the first `MAX_RANKED` are read and ranked. To
read all matches of a common word would take seconds, and no index has them by rank.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select, true, tuple_
from sqlalchemy.sql.selectable import CTE, Join, Subquery

from service.application.ports.queries import MAX_RANKED, Page, PageOfRows


def ranked_page(ranked: CTE, page: Page) -> tuple[Join, Subquery, Subquery]:
    """Return the `id` and `rank` of a page of matches, beside how many `matches` there are: joined, and each.

    The count has a row also where the page has none. Only the page needs to be joined with more.
    """
    keys = (ranked.c.rank, ranked.c.id)
    rows = select(*keys).order_by(*(key.desc() for key in keys)).limit(page.size + 1)
    if page.after is not None:
        rows = rows.where(tuple_(*keys) < tuple_(*page.after, types=[key.type for key in keys]))
    found = rows.subquery("found")
    count = select(func.count().label("matches")).select_from(ranked).subquery("count")
    return count.outerjoin(found, true()), found, count


def page_of_ranked(rows: Sequence[Row[Any]], page: Page) -> PageOfRows:
    """Return the page that rows of such a statement are, whose `id` is null where there is none."""
    found = [row for row in rows if row.id is not None]
    return PageOfRows(found[: page.size], len(found) > page.size, min(rows[0].matches, MAX_RANKED))
