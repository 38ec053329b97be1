"""Tags, which label orders."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from service.domain.errors import InvalidField
from service.domain.text import composed, without_invisible

MAX_TAGS = 50
MAX_LENGTH = 50


@dataclass(eq=False, kw_only=True)
class Tag:
    """A tag, shared by any number of orders. Its name is normalised and never changes."""

    id: UUID
    name: str


def normalised(tags: Iterable[str], field: str) -> list[str]:
    """Return the normalised tags, sorted and without duplicates; raises InvalidField for `field[index]`.

    >>> normalised(["Gift  wrap", "express", "EXPRESS"], "tags")
    ['express', 'gift-wrap']
    """
    return sorted({normalised_tag(tag, f"{field}[{index}]") for index, tag in enumerate(tags)})


def normalised_tag(tag: str, field: str) -> str:
    """Return the normalised form of a tag, which is stored; normalising it again changes nothing.

    Raises:
        InvalidField: for `field`, if the tag has a control character, or is empty or too long when it is normalised.

    >>> normalised_tag("  Straße № 5 ", "tag")
    'strasse-no-5'
    """
    if any(unicodedata.category(character) == "Cc" for character in tag):
        raise InvalidField.at(field, "must not contain a control character")
    # As in NFKC_Casefold of Unicode: case folding expects the composed form, and its result may not be composed.
    name = "-".join(composed(without_invisible(composed(tag)).casefold()).split())
    if not 1 <= len(name) <= MAX_LENGTH:
        raise InvalidField.at(field, f"must have 1 to {MAX_LENGTH} characters when it is normalised")
    return name
