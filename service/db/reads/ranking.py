"""Pages of search results, best match first.

The work is bounded for any query: only the first `MAX_RANKED` matches that the index returns are read and ranked.
Reading all matches of a common word would take seconds, and no index sorts matches by rank.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Row, bindparam, func, select, true, tuple_
from sqlalchemy.sql.selectable import CTE, Join, Subquery

from service.application.ports.queries import MAX_RANKED, Page, PageOfRows
from service.db.reads.reader import fitting_page


def ranked_page(ranked: CTE, *, first: bool) -> tuple[Join, Subquery, Subquery]:
    """Return a page of matches joined with the number of all matches, then the page and the number by themselves.

    The page has the columns `id` and `rank`; the number has the column `matches`. The join has a row even if the page
    is empty. Join further tables with the page only.

    Args:
        ranked: the matches, with the columns `id` and `rank`.
        first: whether it is the first page. `page_values` has the values of the parameters.
    """
    keys = (ranked.c.rank, ranked.c.id)
    rows = select(*keys).order_by(*(key.desc() for key in keys)).limit(bindparam("row_limit", type_=BigInteger))
    if not first:
        after = (bindparam(f"after_{index}", type_=key.type) for index, key in enumerate(keys))
        rows = rows.where(tuple_(*keys) < tuple_(*after))
    found = rows.subquery("found")
    count = select(func.count().label("matches")).select_from(ranked).subquery("count")
    return count.outerjoin(found, true()), found, count


def page_values(page: Page) -> dict[str, object]:
    """Return the values of the parameters of a `ranked_page`."""
    after = {f"after_{index}": key for index, key in enumerate(page.after or ())}
    return {"row_limit": page.size + 1, "max_bytes": page.max_bytes, **after}


def page_of_ranked(rows: Sequence[Row[Any]], page: Page) -> PageOfRows:
    """Return the rows of a `ranked_page` as a page; a row whose `id` is null has only the number of matches."""
    found = [row for row in rows if row.id is not None]
    return fitting_page(found, page, min(rows[0].matches, MAX_RANKED))
