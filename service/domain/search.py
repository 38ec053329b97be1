"""Search queries."""

import re
import string
from collections.abc import Collection
from dataclasses import dataclass

from service.domain.errors import InvalidField

# Maximum number of different words in a query: each of them is looked up, and compared with each match.
MAX_WORDS = 32

# Punctuation only separates words, as in the function `search_words` of the database.
_SEPARATORS = str.maketrans(dict.fromkeys(string.punctuation, " "))
# A phrase in quotes or a word, with what stands before it without a space, such as a minus.
_TERM = re.compile(r'[^\s"]*"[^"]*"?|[^\s"]+')


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Words that a match must contain, in any order; the last may be a prefix. `text` is the original query."""

    text: str
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, field: str) -> "SearchQuery":
        """Parse a query; raises InvalidField for `field` if it contains no word, or too many different words.

        A word that occurs again adds nothing, so it is left out. The last word stays the last, as it may be a prefix.

        >>> SearchQuery.parse("ada.lovelace@example", "query").words
        ('ada', 'lovelace', 'example')
        """
        words = text.translate(_SEPARATORS).split()
        words = [word for word in words if any(character.isalnum() for character in word)]
        if not words:
            raise InvalidField.at(field, "must contain a letter or a digit")
        different = tuple(reversed(dict.fromkeys(reversed(words))))
        _require_few(different, field)
        return cls(text.strip(), different)


def without_repetitions(query: str, field: str) -> str:
    """Return a query with quotes, `or` and `-` without the words and phrases that only repeat others.

    >>> without_repetitions('a b A "b  a" or b "b  a" b', "query")
    'a b "b  a" or b "b  a"'

    Raises:
        InvalidField: for `field`, if it contains too many different words.
    """
    alternatives: dict[tuple[str, ...], None] = {}
    terms: dict[str, str] = {}
    repeats = False
    for term in [*_TERM.findall(query), "or"]:
        if term.casefold() == "or":
            repeats |= tuple(terms.values()) in alternatives
            alternatives[tuple(terms.values())] = None
            terms = {}
        else:
            repeats |= term.casefold() in terms
            terms.setdefault(term.casefold(), term)
    if repeats:
        query = " or ".join(" ".join(alternative) for alternative in alternatives if alternative)
    _require_few(query.translate(_SEPARATORS).split(), field)
    return query


def _require_few(words: Collection[str], field: str) -> None:
    if len(words) > MAX_WORDS:
        raise InvalidField.at(field, f"must have at most {MAX_WORDS} different words")
