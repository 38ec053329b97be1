import pytest

from service.domain.errors import InvalidField
from service.domain.search import MAX_WORDS, SearchQuery, without_repetitions

DIFFERENT = [f"w{number}" for number in range(MAX_WORDS)]


def test_a_word_is_wanted_once_and_the_last_one_stays_last() -> None:
    assert SearchQuery.parse("a b " * 45 + "a", "query").words == ("b", "a")


@pytest.mark.parametrize(
    ("query", "shorter"),
    [
        ("a b " * 45, "a b"),
        ("fragile FRAGILE glass", "fragile glass"),
        ('"a b" c "A b" a', '"a b" c a'),
        ("-a b -a", "-a b"),
        # What is written once means what it meant.
        ("a or b a", "a or b a"),
        ("or a", "or a"),
        ('"not closed  b', '"not closed  b'),
        ("a b or a b or c", "a b or c"),
        ("", ""),
    ],
)
def test_repetitions_are_left_out_of_a_query_for_notes(query: str, shorter: str) -> None:
    assert without_repetitions(query, "query") == shorter


def test_the_number_of_different_words_is_bounded() -> None:
    query = " ".join(DIFFERENT)
    assert without_repetitions(f"{query} {query}", "query") == query
    assert SearchQuery.parse(f"{query} {query}", "query").words == tuple(DIFFERENT)
    for too_many in (f"{query} one-more", f'"{query} more"'):
        with pytest.raises(InvalidField):
            without_repetitions(too_many, "query")
        with pytest.raises(InvalidField):
            SearchQuery.parse(too_many, "query")


def test_a_query_has_up_to_thirty_two_different_words() -> None:
    assert MAX_WORDS == 32


def test_words_are_separated_by_punctuation_and_the_text_stays() -> None:
    query = SearchQuery.parse("  bob.smith@example,com -- _  ", "query")
    assert query == SearchQuery("bob.smith@example,com -- _", ("bob", "smith", "example", "com"))


@pytest.mark.parametrize("text", ["", " ", "-- _ !", "\u200b"])
def test_a_query_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(InvalidField, match="letter or a digit") as refused:
        SearchQuery.parse(text, "query")
    assert [violation.field for violation in refused.value.violations] == ["query"]


def test_a_query_with_too_many_words_is_refused_at_its_field() -> None:
    for parse in (SearchQuery.parse, without_repetitions):
        with pytest.raises(InvalidField, match="at most 32 different words") as refused:
            parse(" ".join([*DIFFERENT, "one-more"]), "query")
        assert [violation.field for violation in refused.value.violations] == ["query"]
