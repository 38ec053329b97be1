"""Search queries."""

import string
from dataclasses import dataclass

from service.domain.errors import InvalidField

# Punctuation only separates words, as in the function `search_words` of the database.
_SEPARATORS = str.maketrans(dict.fromkeys(string.punctuation, " "))


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Words that a match must contain, in any order; the last may be a prefix. `text` is the original query."""

    text: str
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, field: str) -> "SearchQuery":
        """Parse a query; raises InvalidField for `field` if it contains no word.

        >>> SearchQuery.parse("ada.lovelace@example", "query").words
        ('ada', 'lovelace', 'example')
        """
        words = text.translate(_SEPARATORS).split()
        words = [word for word in words if any(character.isalnum() for character in word)]
        if not words:
            raise InvalidField.at(field, "must contain a letter or a digit")
        return cls(text.strip(), tuple(words))
