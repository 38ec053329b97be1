# ruff: noqa: RUF001 - people write all of these characters
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.errors import InvalidField
from service.domain.search import (
    MAX_SNIPPET_LENGTH,
    MAX_WORD_LENGTH,
    MAX_WORDS,
    SEARCHED_FOR_SNIPPET,
    NoteQuery,
    SearchQuery,
    without_accents,
    words_of,
)

DIFFERENT = [f"w{number}" for number in range(MAX_WORDS)]
# Letters of several scripts and cases, with accents, which may stand in any order, and compatibility characters.
letters = st.text(st.sampled_from("aAzZ09éÉÅßſςΣΐᾳİıŁøœÆЙё日本アﾊ각ﬁⅷﷺक्षि\u0301\u0308\u0323"), min_size=1)
separators = st.sampled_from([" ", ".", "@", "_", "-", "/", "’", "'", "…", "—", "\t", "\n", "。", "🦊", "\u20e3", " ¿"])


def parse(query: str) -> list[list[str]]:
    """Return the terms of each alternative as they can be written in a query."""
    return [
        ["-" * term.is_excluded + " ".join(term.words) for term in terms]
        for terms in NoteQuery.parse(query, "query").alternatives
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Anne D’Angelo", "anne d angelo"),
        ("Anne D'Angelo", "anne d angelo"),
        ("ANDRÉ andre\u0301", "andré andré"),
        ("kite.shop/p17", "kite shop p17"),
        ("bob.smith@example.com", "bob smith example com"),
        ("ORD-00000042", "ord 00000042"),
        ("snake_case (2nd) “quoted” 1,000.50 €5", "snake case 2nd quoted 1 000 50 5"),
        ("Straße STRASSE ﬁne ＦＵＬＬ x² ①", "strasse strasse fine full x2 1"),
        ("INFO İstanbul ısı", "info i̇stanbul ısı"),
        ("Σίσυφος ΣΊΣΥΦΟΣ", "σίσυφοσ σίσυφοσ"),
        ("gift\u200bwrap so\u00adft \ufeffbom", "giftwrap soft bom"),
        ("हिन्दी में ไทย 東京、大阪", "हिन्दी में ไทย 東京 大阪"),
        ("1\ufe0f\u20e3 🦊 ´ \u0301", "1"),
        ("", ""),
        ("… — ’", ""),
    ],
)
def test_words_are_letters_and_digits_in_one_form(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("\u1e9e\u0345\u0301ǅ")
def test_words_have_one_form_only(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert words_of(unicodedata.normalize(form, text)) == words
    for word in words:
        assert not set(word) & set("'\\ ~:*&|!()")
        assert 1 <= len(word) <= MAX_WORD_LENGTH
        plain = without_accents(word)
        assert plain
        assert without_accents(plain) == plain


@given(st.text(st.characters(max_codepoint=127)))
def test_a_text_in_ascii_has_the_words_that_it_has_among_other_text(text: str) -> None:
    assert [*words_of(text), "é"] == words_of(f"{text} é")


@given(letters, separators, separators)
def test_case_composition_and_punctuation_do_not_change_a_word(word: str, before: str, after: str) -> None:
    words = words_of(word)
    for variant in (
        word,
        unicodedata.normalize("NFD", word),
        unicodedata.normalize("NFD", word).casefold(),
        # The capital letter of a dotless i is an ordinary I.
        unicodedata.normalize("NFD", word).upper() if "ı" not in word else word,
        unicodedata.normalize("NFC", word),
        unicodedata.normalize("NFKC", word),
    ):
        assert words_of(f"x{before}{variant}{after}y") == ["x", *words, "y"]


def test_a_word_is_wanted_once_and_the_last_one_stays_last() -> None:
    assert SearchQuery.parse("a b " * 45 + "A", "query").words == ("b", "a")


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("blue paint", [["blue", "paint"]]),
        ('"Blue  paint" -red', [["blue paint", "-red"]]),
        ("“blue paint” „x“", [["blue paint", "x"]]),
        ('-"blue paint" x', [["-blue paint", "x"]]),
        ("kite.shop/p17 -bob@example.com", [["kite shop p17", "-bob example com"]]),
        ("a OR b c or", [["a"], ["b", "c"]]),
        ('"a or b" or-c', [["a or b", "or c"]]),
        ("- a -- !! b", [["a", "b"]]),
        ("d’Angelo", [["d angelo"]]),
        # What only repeats other words is left out.
        ("a b " * 45, [["a", "b"]]),
        ("fragile FRAGILE glass", [["fragile", "glass"]]),
        ('"a b" c "A b" a', [["a b", "c", "a"]]),
        ("-a b -a", [["-a", "b"]]),
        ("a or b a", [["a"], ["b", "a"]]),
        ("or a", [["a"]]),
        ('"not closed  b', [["not closed b"]]),
        ("a b or a b or c", [["a", "b"], ["c"]]),
        ("", []),
        ("!!", []),
        ('"" - or', []),
    ],
)
def test_a_query_for_notes_has_phrases_alternatives_and_exclusions(query: str, terms: list[list[str]]) -> None:
    assert parse(query) == terms


@given(st.text(max_size=200))
def test_any_text_is_a_query_for_notes(text: str) -> None:
    query = NoteQuery.parse(" ".join(text.split()[:MAX_WORDS])[:MAX_WORDS], "query")
    assert all(term.words for terms in query.alternatives for term in terms)


def test_the_number_of_different_words_is_bounded() -> None:
    query = " ".join(DIFFERENT)
    assert parse(f"{query} {query}") == [DIFFERENT]
    assert SearchQuery.parse(f"{query} {query}", "query").words == tuple(DIFFERENT)
    for too_many in (f"{query} one-more", f'"{query} more"'):
        with pytest.raises(InvalidField):
            NoteQuery.parse(too_many, "query")
        with pytest.raises(InvalidField):
            SearchQuery.parse(too_many, "query")


FILLER = "before " * 100


@pytest.mark.parametrize(
    ("query", "text", "snippet"),
    [
        ("fragile", "A fragile glass.", "A **fragile** glass."),
        ("p17", "See kite.shop/p17!", "See kite.shop/**p17**!"),
        ("andre", "Ask ANDRÉ, not Andre\u0301s", "Ask **ANDRÉ**, not Andre\u0301s"),
        ("André", "Andre", "**Andre**"),
        ('"glass fragile" -a', "A fragile glass", "A **fragile** **glass**"),
        ("soft", "so\u00adft", "**so\u00adft**"),
        ("other", "A fragile glass", "A fragile glass"),
        ("", "A fragile glass", "A fragile glass"),
        ("x", f"{FILLER}x y", "before " * 8 + "**x** y"),
        ("x y", f"x {FILLER}{FILLER}x y", f"{'before ' * 8}**x** **y**"),
        ("x y", f"x {FILLER}{FILLER}y", f"**x**{' before' * 34} ... {'before ' * 8}**y**"),
    ],
)
def test_a_snippet_marks_the_words_of_the_query(query: str, text: str, snippet: str) -> None:
    assert NoteQuery.parse(query, "query").snippet(text) == snippet


def test_a_snippet_is_made_from_the_beginning_of_a_text() -> None:
    text = "x" * SEARCHED_FOR_SNIPPET + " word"
    assert NoteQuery.parse("word", "query").snippet(text) == "x" * (MAX_SNIPPET_LENGTH // 2 - 3)


@given(
    st.lists(st.sampled_from(["a", "É", "b.", "x" * 99, "y" * 700, "\n", "ﷺ", "a"]), max_size=2000),
    st.sampled_from(" -"),
)
def test_a_snippet_is_bounded_and_in_the_text(parts: list[str], separator: str) -> None:
    text = separator.join(parts)
    query = NoteQuery.parse(f"a e or {'x' * 99} or {'y' * 100}", "query")
    snippet = query.snippet(text)
    assert len(snippet) <= MAX_SNIPPET_LENGTH
    for fragment in snippet.split(" ... "):
        assert fragment.replace("**", "") in text
        assert fragment.count("**") % 2 == 0
    wanted = {"a", "e", "x" * 99}
    if wanted & set(map(without_accents, words_of(text[: SEARCHED_FOR_SNIPPET - 100]))):
        assert "**" in snippet


def test_the_bounds_are_those_that_protos_and_documents_promise() -> None:
    assert (MAX_WORDS, MAX_WORD_LENGTH, MAX_SNIPPET_LENGTH, SEARCHED_FOR_SNIPPET) == (32, 256, 500, 2000)


def test_words_are_separated_by_punctuation_and_the_text_stays() -> None:
    query = SearchQuery.parse("  bob.smith@example,com -- _  ", "query")
    assert query == SearchQuery("bob.smith@example,com -- _", ("bob", "smith", "example", "com"))


@pytest.mark.parametrize("text", ["", " ", "-- _ !", "\u200b"])
def test_a_query_for_users_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(InvalidField, match="letter or a digit") as refused:
        SearchQuery.parse(text, "query")
    assert [violation.field for violation in refused.value.violations] == ["query"]


def test_a_query_with_too_many_words_is_refused_at_its_field() -> None:
    for parse_query in (SearchQuery.parse, NoteQuery.parse):
        with pytest.raises(InvalidField, match="at most 32 different words") as refused:
            parse_query(" ".join([*DIFFERENT, "one-more"]), "query")
        assert [violation.field for violation in refused.value.violations] == ["query"]


@pytest.mark.parametrize(
    ("letter", "plain"),
    [("æ", "ae"), ("đ", "d"), ("ħ", "h"), ("ı", "i"), ("ł", "l"), ("ø", "o"), ("œ", "oe")],
)
def test_letters_that_unicode_does_not_decompose_have_a_plain_form(letter: str, plain: str) -> None:
    assert without_accents(f"x{letter}y") == f"x{plain}y"


def test_only_quotes_are_quotes() -> None:
    assert parse("XaX b") == [["xax", "b"]]


def z(length: int) -> str:
    """Return a word of this length with a space on both sides."""
    return f" {'z' * (length - 2)} "


@pytest.mark.parametrize(
    ("query", "text", "fragment"),
    [
        # At most 60 characters before a match, beginning with a word.
        ("x", "b" * 100 + z(60) + "x", "z" * 58 + " **x**"),
        ("x", "b" * 100 + z(61) + "x", "**x**"),
        # Of a long word, only the beginning is marked.
        ("x" * 101, "x" * 101, "**" + "x" * 100 + "**x"),
        # Two words are in one fragment if the second ends within 187 characters.
        ("a b", "a" + z(185) + "b" + z(300) + "a b", "**a**" + z(185) + "**b**"),
        ("a b", "a" + z(240) + "b" + z(300) + "a b", "**a** **b**"),
        # A fragment has up to 247 characters.
        ("a b", "a" + z(237) + "b", "**a**" + z(237) + "**b**"),
        # The first of two equal words does not hide that the second is beside another word.
        ("a b", "a" + z(100) + "a" + z(100) + "b" + z(300) + "a", "**a**" + z(100) + "**b**"),
    ],
)
def test_the_first_fragment_of_a_snippet_is_the_best(query: str, text: str, fragment: str) -> None:
    assert NoteQuery.parse(query, "query").snippet(text).split(" ... ")[0] == fragment
