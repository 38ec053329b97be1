"""Search: the words of texts and of queries, and the part of a text that shows a match.

Stored texts and queries are normalised here and nowhere else, so searches do not depend on the locale of the database.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.domain.errors import InvalidField
from service.domain.text import without_invisible

# Maximum number of different words in a query: each of them is looked up, and compared with each match.
MAX_WORDS = 32
# In characters. Of a longer word, only the beginning is compared: PostgreSQL stores no word of more than 2 kB.
MAX_WORD_LENGTH = 256
# In characters, with the marks.
MAX_SNIPPET_LENGTH = 500
# How many characters of a text a snippet is made from; one without a match there shows the beginning of the text.
SEARCHED_FOR_SNIPPET = 2000

_ASCII_WORD = re.compile("[a-z0-9]+")
# Marks that change a letter, such as the vowels of Indian scripts; not those around a character, such as a keycap.
_MARKS = frozenset({"Mn", "Mc"})
_ACCENTS = re.compile("[\u0300-\u036f]+")
# Letters that Unicode does not decompose into a letter and an accent, and that people write without.
_PLAIN_LETTERS = str.maketrans({"æ": "ae", "đ": "d", "ħ": "h", "\u0131": "i", "ł": "l", "ø": "o", "œ": "oe"})
_QUOTES = str.maketrans(dict.fromkeys("“”„‟", '"'))
# A phrase in quotes or anything without a space, perhaps after a minus.
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
_SPACE, _NO_SPACE = re.compile(r"\s"), re.compile(r"\S+")
# A snippet has one or two fragments of at most this length, and shows this much text before the first match of each.
_BETWEEN_FRAGMENTS = " ... "
_MAX_FRAGMENT_LENGTH = (MAX_SNIPPET_LENGTH - len(_BETWEEN_FRAGMENTS)) // 2
_CONTEXT_LENGTH = 60
# How much of a word is marked.
_MAX_MARKED_LENGTH = 100


def words_of(text: str) -> list[str]:
    r"""Return the words of a text in their order, as they are compared.

    A word consists of letters and digits; everything else separates words. Case is folded, and characters that look or
    mean the same are one (compatibility caseless matching: The Unicode Standard, section 3.13, D146).

    >>> words_of("Anne D\u2019Angelo, ORD-00000042 (kite.shop/p17)")
    ['anne', 'd', 'angelo', 'ord', '00000042', 'kite', 'shop', 'p17']
    """
    if text.isascii():
        words = _ASCII_WORD.findall(text.lower())
    else:
        words = [word for word in _separated(_fold(text)).split() if any(map(str.isalnum, word))]
    return [word[:MAX_WORD_LENGTH] for word in words]


def without_accents(word: str) -> str:
    """Return one of the `words_of` a text without its accents; all words with the same result match each other.

    >>> [without_accents(word) for word in words_of("André Łukasz Ελλάδα")]
    ['andre', 'lukasz', 'ελλαδα']
    """
    if word.isascii():
        return word
    plain = _ACCENTS.sub("", unicodedata.normalize("NFD", word))
    return unicodedata.normalize("NFC", plain).translate(_PLAIN_LETTERS)


def _fold(text: str) -> str:
    text = without_invisible(text)
    # Twice, because either can make something for the other to do.
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", text)


def _separated(text: str) -> str:
    """Return the text with a space for each character that separates words."""
    return text.translate({ord(each): " " for each in set(text) if _separates(each)})


def _separates(character: str) -> bool:
    return not (
        character.isalnum() or unicodedata.category(character) in _MARKS or without_invisible(character) != character
    )


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
        words = words_of(text)
        if not words:
            raise InvalidField.at(field, "must contain a letter or a digit")
        _require_few(words, field)
        return cls(text.strip(), tuple(reversed(dict.fromkeys(reversed(words)))))


class Term(NamedTuple):
    """Words that stand beside each other in this order, and whether a match must not contain them."""

    words: tuple[str, ...]
    is_excluded: bool


@dataclass(frozen=True, slots=True)
class NoteQuery:
    """A query with phrases, alternatives and exclusions: a match satisfies all terms of one of the alternatives."""

    alternatives: tuple[tuple[Term, ...], ...]

    @classmethod
    def parse(cls, text: str, field: str) -> "NoteQuery":
        """Parse a query with quotes, `or` and `-`; raises InvalidField for `field` if it has too many different words.

        What is written without a space is a phrase too. Terms that only repeat others are left out.

        >>> for terms in NoteQuery.parse('a "b c" A or kite.shop', "query").alternatives:
        ...     print([term.words for term in terms])
        [('a',), ('b', 'c')]
        [('kite', 'shop')]
        """
        alternatives: list[dict[Term, None]] = [{}]
        for minus, phrase, bare in _TERM.findall(text.translate(_QUOTES)):
            if not minus and bare.casefold() == "or":
                alternatives.append({})
            elif words := words_of(phrase or bare):
                alternatives[-1][Term(tuple(words), bool(minus))] = None
        different = dict.fromkeys(tuple(terms) for terms in alternatives if terms)
        _require_few([word for terms in different for term in terms for word in term.words], field)
        return cls(tuple(different))

    def snippet(self, text: str) -> str:
        """Return the parts of a text that show the words of the query best, with `**` around each of these words.

        >>> NoteQuery.parse("andre", "query").snippet("Call André first.")
        'Call **André** first.'
        """
        terms = (term for terms in self.alternatives for term in terms if not term.is_excluded)
        wanted = {without_accents(word) for term in terms for word in term.words}
        text = text[:SEARCHED_FOR_SNIPPET]
        matches = list(_matches(text, wanted))
        fragment, end = _fragment(text, matches[_index_of_best(matches) :])
        rest = [match for match in matches if match.start >= end]
        return _BETWEEN_FRAGMENTS.join([fragment, _fragment(text, rest)[0]]) if rest else fragment


class _Match(NamedTuple):
    start: int
    end: int
    word: str


def _require_few(words: Collection[str], field: str) -> None:
    if len(set(words)) > MAX_WORDS:
        raise InvalidField.at(field, f"must have at most {MAX_WORDS} different words")


def _matches(text: str, wanted: Collection[str]) -> Iterator[_Match]:
    """Yield the places of a text that have one of the words, which are without accents."""
    for place in _NO_SPACE.finditer(_separated(text)):
        for word in words_of(place[0][:MAX_WORD_LENGTH]):
            plain = without_accents(word)
            if plain in wanted:
                start, end = place.span()
                yield _Match(start, min(end, start + _MAX_MARKED_LENGTH), plain)
                break


def _index_of_best(matches: Sequence[_Match]) -> int:
    """Return the index of the first match of a fragment with as many different words as possible."""
    best = most = end = 0
    words = Counter[str]()
    for index, match in enumerate(matches):
        while end < len(matches) and matches[end].end <= match.start + _MAX_FRAGMENT_LENGTH - _CONTEXT_LENGTH:
            words[matches[end].word] += 1
            end += 1
        if len(words) > most:
            best, most = index, len(words)
        words[match.word] -= 1
        if not words[match.word]:
            del words[match.word]
    return best


def _fragment(text: str, matches: Sequence[_Match]) -> tuple[str, int]:
    """Return the part of a text around the first of the matches, or the beginning of the text; and where it ends."""
    position = 0
    if matches and (position := max(0, matches[0].start - _CONTEXT_LENGTH)):
        # Begin with a whole word.
        space = _SPACE.search(text, position, matches[0].start)
        position = space.end() if space else matches[0].start
    fragment = ""
    for start, end, _ in matches:
        marked = f"{text[position:start]}**{text[start:end]}**"
        if len(fragment) + len(marked) > _MAX_FRAGMENT_LENGTH:
            break
        fragment += marked
        position = end
    rest = text[position : position + _MAX_FRAGMENT_LENGTH - len(fragment)]
    if position + len(rest) < len(text) and (spaces := list(_SPACE.finditer(rest))):
        # End with a whole word.
        rest = rest[: spaces[-1].start()]
    return fragment + rest, position + len(rest)
