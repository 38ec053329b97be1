"""The read side of notes; `service.application.ports.queries.NoteQueries` documents each method."""

from functools import cache
from typing import Any

from sqlalchemy import REAL, ColumnElement, FromClause, Integer, Select, bindparam, cast, literal_column, select
from sqlalchemy.dialects.postgresql import TSQUERY

from service.application.ports.queries import MAX_RANKED, NoteFilter, Page, PageOfRows
from service.db.connections.expensive_reads import Expensive
from service.db.connections.statement import Statement
from service.db.reads.columns import text_size
from service.db.reads.ranking import page_of_ranked, page_values, ranked_page
from service.db.reads.reader import Reader, limited_by_size
from service.db.tables import order_notes
from service.db.text_search import notes_query, rank
from service.domain.notes import NoteState
from service.domain.search import NoteQuery

_NOTES = select(*(column for column in order_notes.c if column is not order_notes.c.search))
# More than what the message of a note needs, beside its body; and that of a match, beside its note: its snippet too.
_NOTE_BYTES = 300
_MATCH_BYTES = 2300
# Subqueries, so that the planner does not see the words: for common words it would read the whole table.
_MATCHING = select(cast(bindparam("matching"), TSQUERY)).scalar_subquery()
_WITH_ACCENTS = select(cast(bindparam("with_accents"), TSQUERY)).scalar_subquery()
_MATCHES = order_notes.c.search.bool_op("@@")(_MATCHING)
# A match with the same accents comes first.
_RANK = rank(order_notes.c.search, _MATCHING) + rank(order_notes.c.search, _WITH_ACCENTS)


class NoteQueries:
    """Implements `service.application.ports.queries.NoteQueries`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def page(self, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of notes, newest first."""
        keys = (order_notes.c.create_time, order_notes.c.id)
        return await self._reader.page(_filtered(_NOTES, where), keys, page, size=_note_size, descending=True)

    async def search(self, query: NoteQuery, where: NoteFilter, page: Page) -> PageOfRows:
        """Return a page of the notes that match `query`, best match first."""
        statement = _search_statement(
            of_order=where.order_id is not None,
            of_author=where.author_id is not None,
            include_drafts=where.include_drafts,
            first=page.after is None,
        )
        values = {
            "matching": notes_query(query, accents=False),
            "with_accents": notes_query(query, accents=True),
            "order_id": where.order_id,
            "author_id": where.author_id,
        }
        rows = await self._reader.all(statement, values | page_values(page), expensive=Expensive.SEARCH)
        return page_of_ranked(rows, page)


@cache
def _search_statement(*, of_order: bool, of_author: bool, include_drafts: bool, first: bool) -> Statement:
    matches = select(order_notes.c.id, cast(_RANK, REAL).label("rank")).where(_MATCHES)
    if of_order:
        matches = matches.where(order_notes.c.order_id == bindparam("order_id"))
    if of_author:
        matches = matches.where(order_notes.c.author_id == bindparam("author_id"))
    if not include_drafts:
        matches = matches.where(order_notes.c.state == NoteState.PUBLISHED)
    part, found, count = ranked_page(matches.limit(MAX_RANKED).cte("ranked"), first=first)
    rows = part.outerjoin(order_notes, order_notes.c.id == found.c.id)
    statement = _NOTES.add_columns(found.c.rank, count.c.matches).select_from(rows)
    limited = limited_by_size(statement, _match_size, (found.c.rank, found.c.id), descending=True)
    return Statement("search_notes", limited)


def _note_size(row: FromClause) -> ColumnElement[int]:
    return text_size(row.c.body) + literal_column(str(_NOTE_BYTES), Integer)


def _match_size(row: FromClause) -> ColumnElement[int]:
    return _note_size(row) + literal_column(str(_MATCH_BYTES), Integer)


def _filtered(statement: Select[Any], where: NoteFilter) -> Select[Any]:
    if where.order_id is not None:
        statement = statement.where(order_notes.c.order_id == where.order_id)
    if where.author_id is not None:
        statement = statement.where(order_notes.c.author_id == where.author_id)
    if not where.include_drafts:
        statement = statement.where(order_notes.c.state == NoteState.PUBLISHED)
    return statement
