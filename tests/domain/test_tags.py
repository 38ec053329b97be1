import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.errors import InvalidField
from service.domain.money import Money
from service.domain.orders import ItemFields, Order
from service.domain.tags import Tag, normalised, normalised_tag

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Characters that case folding or composition changes are rare; errors would show in tags made of few of them.
HARD = [
    character
    for character in map(chr, (*range(0x20, 0x7F), *range(0xA0, 0xD800), *range(0xE000, 0x20000)))
    if character.casefold() != character
    or unicodedata.normalize("NFKC", character) != character
    or unicodedata.combining(character)
    or character.isspace()
]
WRITTEN = st.text(min_size=1, max_size=60) | st.text(st.sampled_from(HARD), min_size=1, max_size=6)


def tag(name: str) -> Tag:
    return Tag(id=uuid4(), name=name)


def new_order() -> Order:
    item = ItemFields("anvil", "Anvil", 1, Money("EUR", Decimal(1)))
    order = Order.place(uuid4(), "ORD-1", {"items": [item]}, NOW)
    order.take_events()
    return order


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("gift", "gift"),
        ("  Gift \u00a0 Wrap\u2003", "gift-wrap"),
        ("ＶＩＰ", "vip"),  # noqa: RUF001 - full width is the point
        ("Straße", "strasse"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("ﬁre", "fire"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("a - b", "a---b"),
        ("x" * 50 + " ", "x" * 50),
        ("100%,_ok", "100%,_ok"),
        ("gi\u00adft\u200b", "gift"),
        ("\ufeffgift\u2060\u3164wrap\u200b ", "giftwrap"),
        ("e\u200b\u0301", "\u00e9"),
    ],
)
def test_a_tag_has_one_form(written: str, kept: str) -> None:
    assert normalised_tag(written, "tags[0]") == kept


@pytest.mark.parametrize(
    "written", ["", " ", "\u2003\u00a0", "\u200b", "\u3164", "x" * 51, "\ufdfa" * 3, "a\tb", "a\nb", "\0", "a\x85b"]
)
def test_an_invalid_tag_is_refused_by_its_index(written: str) -> None:
    with pytest.raises(InvalidField) as raised:
        normalised(["fine", written], "tags")
    assert [violation.field for violation in raised.value.violations] == ["tags[1]"]


@given(WRITTEN)
@example("\u0345\u0301")
@example("\u00b4a")
@example("\u01f0")
@example("e\u00ad\u0301")
def test_the_normalised_form_is_its_own(written: str) -> None:
    try:
        name = normalised_tag(written, "tag")
    except InvalidField:
        return
    assert normalised_tag(name, "tag") == name
    assert unicodedata.is_normalized("NFKC", name)
    assert 1 <= len(name) <= 50
    assert not any(character.isspace() for character in name)


@given(WRITTEN)
def test_writings_that_look_alike_are_one_tag(written: str) -> None:
    try:
        name = normalised_tag(written, "tag")
    except InvalidField:
        return
    assert normalised_tag(f"  {written} ", "tag") == name
    assert normalised_tag(unicodedata.normalize("NFD", written), "tag") == name
    assert normalised([written, unicodedata.normalize("NFKC", written), name], "tags") == [name]


def test_tags_that_change_nothing_are_no_change() -> None:
    order = new_order()
    order.remove_tags(["gift"], NOW)
    order.add_tags([], NOW)
    assert (order.version, order.take_events()) == (1, [])
    order.add_tags([tag("gift"), tag("a")], NOW)
    assert (order.version, order.tag_names) == (2, ["a", "gift"])
    (event,) = order.take_events()
    assert [(change.field, change.old_value, change.new_value) for change in event.changes] == [("tags", "", "a, gift")]
    order.add_tags([tag("gift")], NOW)
    order.remove_tags(["b"], NOW)
    assert (order.version, order.take_events()) == (2, [])


def test_an_order_has_at_most_fifty_tags() -> None:
    order = new_order()
    order.add_tags([tag(f"t{number}") for number in range(50)], NOW)
    with pytest.raises(InvalidField):
        order.add_tags([tag("one-more")], NOW)
    assert (len(order.tags), order.version) == (50, 2)
    order.add_tags([tag("t7")], NOW)
    assert (len(order.tags), order.version) == (50, 2)


@pytest.mark.parametrize(("written", "problem"), [("a\tb", "control character"), ("x" * 51, "1 to 50 characters")])
def test_an_invalid_tag_is_told_what_is_wrong(written: str, problem: str) -> None:
    with pytest.raises(InvalidField, match=problem) as refused:
        normalised_tag(written, "tag")
    assert [violation.field for violation in refused.value.violations] == ["tag"]
