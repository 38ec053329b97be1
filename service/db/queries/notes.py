"""The read side of notes; what each method answers is written at `service.application.ports.NoteQueries`."""

from typing import Any

from sqlalchemy import REAL, Select, Text, func, select

from service.application.ports import NoteFilter, Page, PageOfRows
from service.db.queries.reader import Reader
from service.db.tables import SEARCH_CONFIG, order_notes
from service.domain.notes import NoteState

_NOTES = select(*(column for column in order_notes.c if column is not order_notes.c.search))
# Marks that a browser does not take for its own, as the body around them is not escaped.
_HEADLINE = 'StartSel=**, StopSel=**, MaxFragments=2, MaxWords=30, MinWords=10, FragmentDelimiter=" ... "'
# In characters: words can be long.
_MAX_SNIPPET = 500


class NoteQueries:
    """Implements `service.application.ports.NoteQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def page(self, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of notes, last written first."""
        keys = (order_notes.c.create_time, order_notes.c.id)
        return await self._reader.page(_filtered(_NOTES, where), keys, page, descending=True)

    async def search(self, query: str, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of the notes that `query` finds, best first."""
        wanted = func.websearch_to_tsquery(SEARCH_CONFIG, query)
        rank = func.ts_rank(order_notes.c.search, wanted, type_=REAL).label("rank")
        # PostgreSQL makes the costly headline after the limit, for the rows of the page only.
        headline = func.ts_headline(SEARCH_CONFIG, order_notes.c.body, wanted, _HEADLINE)
        snippet = func.left(headline, _MAX_SNIPPET, type_=Text).label("snippet")
        statement = (
            _filtered(_NOTES, where).add_columns(rank, snippet).where(order_notes.c.search.bool_op("@@")(wanted))
        )
        return await self._reader.page(statement, (rank, order_notes.c.id), page, descending=True)


def _filtered(statement: Select[Any], where: NoteFilter) -> Select[Any]:
    if where.order_id is not None:
        statement = statement.where(order_notes.c.order_id == where.order_id)
    if where.author_id is not None:
        statement = statement.where(order_notes.c.author_id == where.author_id)
    if not where.include_drafts:
        statement = statement.where(order_notes.c.state == NoteState.PUBLISHED)
    return statement
