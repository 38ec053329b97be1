"""What builds the site finds what is wrong with pages, navigation and links."""

import doctest
from pathlib import Path

import pytest

from docs.site import pages, reference, rules
from docs.site.links import problems_of
from docs.site.navigation import NavigationError, complete
from docs.site.pages import BrokenLinkError, write_page
from docs.site.rules import rules_in_words


def _pages(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("# A page\n")
    return folder


def test_a_page_that_is_not_in_the_navigation_is_named(tmp_path: Path) -> None:
    with pytest.raises(NavigationError, match=r"^lost\.md is not in the navigation: add it to"):
        complete(["index.md"], _pages(tmp_path, "index.md", "lost.md"))


def test_an_entry_without_a_page_and_a_page_with_two_entries_are_named(tmp_path: Path) -> None:
    with pytest.raises(NavigationError) as raised:
        complete(["index.md", {"More": ["gone.md", {"Again": "index.md"}]}], _pages(tmp_path, "index.md"))
    assert str(raised.value).splitlines() == [
        "gone.md is in the navigation and is not there",
        "index.md is in the navigation twice",
    ]


def test_a_pattern_stands_for_the_pages_that_have_no_entry(tmp_path: Path) -> None:
    folder = _pages(tmp_path, "adr/index.md", "adr/0002.md", "adr/0001.md", "index.md")
    navigation = ["index.md", {"Decisions": [{"All": "adr/index.md"}, "adr/*.md", "alerts/*.md"]}]
    assert complete(navigation, folder) == [
        "index.md",
        {"Decisions": [{"All": "adr/index.md"}, "adr/0001.md", "adr/0002.md"]},
    ]


def _written(folder: Path, text: str, path: str = "docs/page.md") -> str:
    write_page(path, text, folder)
    return (folder / pages.place(path)).read_text()


def test_links_lead_to_the_pages_of_the_site(tmp_path: Path) -> None:
    assert _written(tmp_path, "[a](events.md#watch) [b](../CONTRIBUTING.md) [c](https://example.com)") == (
        "[a](events.md#watch) [b](contributing.md) [c](https://example.com)"
    )
    assert _written(tmp_path, "[a](../events.md)", "docs/adr/README.md") == "[a](../events.md)"
    assert _written(tmp_path, "```text\n[a](nowhere.md)\n```\n") == "```text\n[a](nowhere.md)\n```\n"


def test_a_file_that_a_page_links_to_is_copied(tmp_path: Path) -> None:
    assert _written(tmp_path, "[a](../migrations/env.py)") == "[a](files/migrations/env.py.txt)"
    assert "alembic" in (tmp_path / "files/migrations/env.py.txt").read_text()


@pytest.mark.parametrize("target", ["nowhere.md", "../service", "../protos/nothing.proto"])
def test_a_broken_link_is_named(tmp_path: Path, target: str) -> None:
    with pytest.raises(BrokenLinkError, match=f"docs/page.md links to .*{target}"):
        _written(tmp_path, f"[a]({target})")


GOOD = '<link rel="stylesheet" href="style.css"><h1 id="top">A</h1><img src="a.png"><a href="b.html#end">b</a>'


def _site(folder: Path, page: str, style: str = "") -> list[str]:
    (folder / "index.html").write_text(page)
    (folder / "b.html").write_text('<p id="end">b</p><a href="#end">end</a> <a href="https://example.com">out</a>')
    (folder / "style.css").write_text(style)
    (folder / "a.png").write_bytes(b"")
    return problems_of(folder)


def test_a_site_whose_links_are_right_has_no_problem(tmp_path: Path) -> None:
    assert _site(tmp_path, GOOD, "a { background: url(a.png) }") == []


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ('<a href="c.html">', "links to c.html, which is not there"),
        ('<a href="b.html#start">', "links to b.html#start, which has no such anchor"),
        ('<a href="#bottom">', "links to #bottom, which has no such anchor"),
        ('<img src="c.png">', "loads c.png, which is not there"),
        ('<script src="https://cdn.example.com/a.js">', "loads https://cdn.example.com/a.js"),
        ('<link rel="stylesheet" href="//fonts.example.com/a.css">', "loads //fonts.example.com/a.css"),
    ],
)
def test_what_is_wrong_with_a_page_is_named(tmp_path: Path, page: str, problem: str) -> None:
    assert _site(tmp_path, f"{GOOD}{page}") == [f"index.html: {problem}"]


def test_a_style_sheet_that_loads_from_elsewhere_is_named(tmp_path: Path) -> None:
    style = '@import "https://fonts.example.com/a.css"; a { background: url("https://example.com/a.png") }'
    assert _site(tmp_path, GOOD, style) == [
        "style.css: loads https://fonts.example.com/a.css",
        "style.css: loads https://example.com/a.png",
    ]


def test_a_rule_without_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="rules without words: new"):
        rules_in_words({"new": 1})


def test_examples_in_docstrings() -> None:
    for module in (pages, reference, rules):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
