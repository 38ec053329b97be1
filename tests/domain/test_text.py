import string

import pytest

from service.domain.errors import InvalidField
from service.domain.text import folded, is_blank, multi_line, require_visible, without_invisible

INVISIBLE = [
    "\u200b",
    "\u00ad",
    "\ufeff",
    "\u2060",
    "\u3164",
    "\u200d",
    "\uffa0",
    "\u2800",
    "\ufe0f",
    "\ufff9",
    "\U000e0041",
]


@pytest.mark.parametrize("text", ["", " ", "\u00a0\u2003", *INVISIBLE, "".join(INVISIBLE), " \u200b \u3164"])
def test_text_without_a_visible_character_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " \u200ba", "0", "é", "가", "👩\u200d💻", "क\u200dष", "-"])
def test_text_with_a_visible_character_is_not(text: str) -> None:
    assert not is_blank(text)
    require_visible(text, "name")


def test_a_field_that_shows_nothing_is_named() -> None:
    require_visible("", "name")
    require_visible(None, "name")
    with pytest.raises(InvalidField, match="visible character") as raised:
        require_visible("\u200b", "name")
    assert [violation.field for violation in raised.value.violations] == ["name"]


def test_every_printable_ascii_character_is_visible() -> None:
    printable = string.digits + string.ascii_letters + string.punctuation
    assert without_invisible(printable + "é") == printable + "é"
    assert not [character for character in printable if is_blank(character)]


@pytest.mark.parametrize("character", INVISIBLE)
def test_invisible_characters_are_removed(character: str) -> None:
    assert without_invisible(f"gi{character}{character}ft{character} é") == "gift é"


@pytest.mark.parametrize(
    ("written", "stored"),
    [("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("a\r\n\r\n\tb\r", "a\n\n\tb\n"), ("a\n\rb", "a\n\nb"), ("", "")],
)
def test_every_line_break_becomes_a_line_feed(written: str, stored: str) -> None:
    assert multi_line(written, 100, "bio") == stored
    assert multi_line(stored, 100, "bio") == stored


def test_a_line_break_counts_as_one_character() -> None:
    assert len(multi_line("\r\n" * 100, 100, "bio")) == 100
    with pytest.raises(InvalidField, match="at most 100 characters") as refused:
        multi_line("\r\n" * 101, 100, "bio")
    assert [violation.field for violation in refused.value.violations] == ["bio"]


@pytest.mark.parametrize(
    ("name", "form"),
    [("INFO@Example.COM", "info@example.com"), ("İI", "İi"), ("\u212aelvin", "\u212aelvin"), ("ÄÉ", "ÄÉ")],
)
def test_only_ascii_letters_are_folded(name: str, form: str) -> None:
    assert folded(name) == form


def test_no_other_ascii_character_is_changed_by_folding() -> None:
    ascii_characters = "".join(map(chr, range(128)))
    assert folded(ascii_characters) == ascii_characters.lower()
    assert folded(f"{ascii_characters}Ä") == f"{ascii_characters.lower()}Ä"
