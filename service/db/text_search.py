"""Texts and queries as PostgreSQL's types tsvector and tsquery.

They are written here, from the words that `service.domain.search` finds. PostgreSQL's own functions, such as
to_tsvector, find other words in every locale.

Each word is stored as it is and, with the lowest weight (D), without its accents. Queries look for words without
accents, and the words as they are add to the rank of a match.
"""

from collections.abc import Iterable

from sqlalchemy import REAL, Column, ColumnElement, cast, func
from sqlalchemy.dialects.postgresql import TSQUERY

from service.domain.notes import OrderNote
from service.domain.search import NoteQuery, SearchQuery, Term, without_accents, words_of
from service.domain.users import User

# Tells the triggers …_search that the transaction writes the words of users and notes itself. A release that finds
# other words increases the version.
SEARCH_VERSION_SETTING = "commerce.writes_search"
SEARCH_VERSION = "1"
# Among the words that the triggers write of a text that is not ASCII; no text has this word.
_WRITTEN_BY_TRIGGER = "~"


def are_approximate(words: Column[str]) -> ColumnElement[bool]:
    """Return the condition that a trigger wrote the words of a text that is not ASCII, so they are not quite right."""
    return words.bool_op("@@")(cast(_WRITTEN_BY_TRIGGER, TSQUERY))


def rank(words: Column[str], query: ColumnElement[str]) -> ColumnElement[float]:
    """Return how well words match a query: more, the more often its words occur and the more they weigh.

    If AND is the outermost operator of the query, ts_rank compares all positions of each word with all positions of
    each other, which takes 0.1 s for a note with eight words that repeat; with OR, it looks at each position once.
    """
    return func.ts_rank(words, query.op("||", return_type=TSQUERY())(query), type_=REAL)


def user_vector(user: User) -> str:
    """Return the words of a user: those of the username weigh most (A), then those of the full name and the bio."""
    return _vector([(user.username, "A"), (user.full_name, "B"), (user.bio, "C")])


def note_vector(note: OrderNote) -> str:
    """Return the words of a note."""
    return _vector([(note.body, "A")])


def _vector(texts: Iterable[tuple[str, str]]) -> str:
    places: dict[str, list[str]] = {}
    position = 0
    for text, weight in texts:
        for word in words_of(text):
            position += 1
            places.setdefault(word, []).append(f"{position}{weight}")
            if (plain := without_accents(word)) != word:
                places.setdefault(plain, []).append(f"{position}D")
    return " ".join(f"'{word}':{','.join(of_word)}" for word, of_word in places.items())


def users_query(query: SearchQuery, *, last_is_prefix: bool, accents: bool) -> str:
    """Return a query for all words, with or without their accents."""
    words = " & ".join(_word(word, accents=accents) for word in query.words)
    return f"{words}:*" if last_is_prefix else words


def notes_query(query: NoteQuery, *, accents: bool) -> str:
    """Return a query for notes, with or without accents; it is empty, and matches nothing, if it has no words."""
    return " | ".join(" & ".join(_term(term, accents=accents) for term in terms) for terms in query.alternatives)


def _term(term: Term, *, accents: bool) -> str:
    phrase = " <-> ".join(_word(word, accents=accents) for word in term.words)
    return f"!({phrase})" if term.is_excluded else f"({phrase})"


def _word(word: str, *, accents: bool) -> str:
    return f"'{word if accents else without_accents(word)}'"
