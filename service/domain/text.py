"""Rules for text that people write: which characters count, and when two writings are the same name."""

import re
import unicodedata

from service.domain.errors import InvalidField

# Characters that show nothing, such as a zero-width space, a soft hyphen, a byte order mark and a Hangul filler: those
# with Default_Ignorable_Code_Point of Unicode, which Python's unicodedata does not have, the marks of annotations
# (U+FFF9 to U+FFFB), and the braille blank.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_VISIBLE = re.compile(rf"[^\s{_INVISIBLE}]")
_INVISIBLES = re.compile(f"[{_INVISIBLE}]+")
_LINE_BREAK = re.compile(r"\r\n?")
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def folded(name: str) -> str:
    """Return an e-mail address or a username in the form by which it is compared: A to Z become a to z.

    Both are ASCII, so no other letter can be part of one that exists. The database folds by the collation "C", which
    does the same in every locale; the `lower()` of a Turkish locale would make a dotless i of `I`.

    >>> folded("INFO@Example.com")
    'info@example.com'
    """
    return name.lower() if name.isascii() else name.translate(_ASCII_LOWER)


def is_blank(text: str) -> bool:
    r"""Return whether the text shows nothing: it is empty, or has only white space and invisible characters.

    >>> is_blank(" \u200b"), is_blank("a")
    (True, False)
    """
    if text.isascii():
        return not text or text.isspace()
    return _VISIBLE.search(text) is None


def require_visible(text: str | None, field: str) -> None:
    """Raise InvalidField for `field` if there is a text, but it shows nothing."""
    if text and is_blank(text):
        raise InvalidField.at(field, "must contain a visible character")


def without_invisible(text: str) -> str:
    r"""Return the text without its invisible characters.

    >>> without_invisible("gift\u200b wrap")
    'gift wrap'
    """
    return text if text.isascii() else _INVISIBLES.sub("", text)


def composed(text: str) -> str:
    """Return the text in Unicode normalization form NFKC, which is the same for all keyboards and systems."""
    return unicodedata.normalize("NFKC", text)


def multi_line(text: str, max_length: int, field: str) -> str:
    r"""Return a text of several lines as it is stored: with `\n` for each line break, also for those of Windows.

    Raises:
        InvalidField: for `field`, if the result has more than `max_length` characters.

    >>> multi_line("two\r\nlines", 10, "note.body")
    'two\nlines'
    """
    text = _LINE_BREAK.sub("\n", text)
    if len(text) > max_length:
        raise InvalidField.at(field, f"must have at most {max_length} characters, with each line break counted as one")
    return text
