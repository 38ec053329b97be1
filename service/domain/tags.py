"""Tags: words that orders are marked with."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from service.domain.errors import InvalidField

MAX_TAGS = 50
MAX_LENGTH = 50


@dataclass(eq=False, kw_only=True)
class Tag:
    """One tag, which any number of orders have. Its name is normalised and never changes."""

    id: UUID
    name: str


def normalised(tags: Iterable[str], field: str) -> list[str]:
    """Return the normalised tags, sorted and each once; raises InvalidField for `field[index]`.

    >>> normalised(["Gift  wrap", "express", "EXPRESS"], "tags")
    ['express', 'gift-wrap']
    """
    return sorted({normalised_tag(tag, f"{field}[{index}]") for index, tag in enumerate(tags)})


def normalised_tag(tag: str, field: str) -> str:
    """Return the one form of a tag that is kept, which is its own normalised form.

    Raises:
        InvalidField: for `field`: it has a control character, or nothing or too much is left of it.

    >>> normalised_tag("  Straße № 5 ", "tag")
    'strasse-no-5'
    """
    if any(unicodedata.category(character) == "Cc" for character in tag):
        raise InvalidField.at(field, "must have no control character")
    # Folding works on the composed form, and can leave one that is not.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())
    name = "-".join(folded.split())
    if not 1 <= len(name) <= MAX_LENGTH:
        raise InvalidField.at(field, f"must have 1 to {MAX_LENGTH} characters when it is normalised")
    return name
