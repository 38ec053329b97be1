"""What a caller looks for by words."""

import string
from dataclasses import dataclass

from service.domain.errors import InvalidField

# As `search_words` of the database does with what is found: punctuation only separates words.
_SEPARATORS = str.maketrans(dict.fromkeys(string.punctuation, " "))


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Words that must all be there, in any order; the last may be the beginning of one. `text` is what was asked."""

    text: str
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, field: str) -> "SearchQuery":
        """Return the query that a text says; raises InvalidField for `field` where it has no word.

        >>> SearchQuery.parse("ada.lovelace@example", "query").words
        ('ada', 'lovelace', 'example')
        """
        words = text.translate(_SEPARATORS).split()
        words = [word for word in words if any(character.isalnum() for character in word)]
        if not words:
            raise InvalidField.at(field, "must have a letter or a digit")
        return cls(text.strip(), tuple(words))
