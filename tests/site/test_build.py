"""The site as `make site` builds it: complete, as the pages are, searchable, and alone with its own files."""

import json
import re
import tomllib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from commerce.common.v1.error_reason_pb2 import ErrorReason
from markdown_it import MarkdownIt

from docs.site.build import CONFIGURATION, build
from docs.site.pages import OTHERS, place
from tests.support.browsers import CHROMIUM, running_browser, serving_files
from tests.support.methods import ALL_METHODS
from tests.support.paths import ROOT

PAGES = sorted([*OTHERS, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))])
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
MARKDOWN = MarkdownIt("commonmark").enable("table")
# The elements that must be as many on the site as on GitHub, by the tokens of Markdown.
ELEMENTS = {
    "heading_open": "heading",
    "list_item_open": "li",
    "table_open": "table",
    "tr_open": "tr",
    "fence": "pre",
    "code_block": "pre",
}
HEADINGS = {f"h{level}" for level in range(1, 7)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site. If a link, an anchor or the navigation is wrong, the build fails."""
    folder = tmp_path_factory.mktemp("site") / "site"
    build(folder)
    return folder


class Article(HTMLParser):
    """Counts the elements of the content of a page, without the parts around it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._depth += tag == "article"
        if self._depth:
            self.counts["heading" if tag in HEADINGS else tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "article"


def article(page: Path) -> Counter[str]:
    parser = Article()
    parser.feed(page.read_text())
    return parser.counts


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_on_the_site_what_it_has_on_github(page: str, site: Path) -> None:
    tokens = MARKDOWN.parse((ROOT / page).read_text())
    expected = Counter(ELEMENTS[token.type] for token in tokens if token.type in ELEMENTS)
    found = article((site / place(page)).with_suffix(".html"))
    assert {name: found[name] for name in ELEMENTS.values()} == {name: expected[name] for name in ELEMENTS.values()}


def test_the_reference_has_all_methods_and_links_their_errors_to_the_catalogue(site: Path) -> None:
    text = "".join((site / "reference" / f"{name}.html").read_text() for name in ("orderservice", "userservice"))
    assert {name for name in ALL_METHODS if f'id="{name.lower()}"' not in text} == set()
    linked = set(re.findall(r'href="\.\./errors/\w+\.html#(\w+)"', text))
    reasons = {name.removeprefix("ERROR_REASON_").lower() for name, _ in ErrorReason.items()} - {"unspecified"}
    assert linked == reasons


def test_the_reference_has_all_commands(site: Path) -> None:
    text = "".join((site / "reference" / f"{name}.html").read_text() for name in ("commerce", "commercectl"))
    for command in ("commerce serve", "commerce keys create", "commercectl orders watch", "commercectl context add"):
        assert f"Usage: {command} " in text
    assert "commerce worker" not in text


def test_the_site_is_described_only_by_its_configuration() -> None:
    project = tomllib.loads(CONFIGURATION.read_text())["project"]
    assert project["theme"]["font"] is False
    assert "site_url" not in project


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_needs_nothing_from_elsewhere_and_is_for_light_and_dark(picture: Path) -> None:
    text = picture.read_text()
    root = ET.fromstring(text)  # noqa: S314 - a file of this repository
    assert "prefers-color-scheme: dark" in text
    assert (root.findtext("{http://www.w3.org/2000/svg}title") or "").strip()
    assert not re.search(r"(href|src)=|url\((?!#)|@import", text)
    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(element.get("x") or 0) <= width
        assert 0 <= float(element.get("y") or 0) <= height
    # Fills and strokes are in the style, so that there are two of each.
    assert not re.search(r'(fill|stroke)="', text)


def test_every_picture_is_shown() -> None:
    shown = {name for page in PAGES for name in re.findall(r"pictures/([\w-]+\.svg)", (ROOT / page).read_text())}
    assert shown == {picture.name for picture in PICTURES}


def test_what_is_searched_is_in_the_index(site: Path) -> None:
    found = json.dumps(json.loads((site / "search.json").read_text()))
    for words in ("INSUFFICIENT_CREDIT", "COMMERCE_MAX_WATCHES", "commerce_calls_refused_total", "ConfirmOrder"):
        assert words in found


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_a_reader_finds_a_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    with serving_files(site) as origin:
        async with running_browser() as browser:
            context = await browser.new_context(color_scheme="dark")
            page = await context.new_page()
            requested: list[str] = []
            problems: list[str] = []
            page.on("request", lambda request: requested.append(request.url))
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(f"{origin}/index.html")
            assert await page.evaluate("document.body.dataset.mdColorScheme") == "slate"
            await page.click(".md-search__button")
            await page.keyboard.type("insufficient_credit")
            await page.get_by_role("option").first.click()
            await page.wait_for_url("**/errors/resources.html?*#insufficient_credit")
            assert await page.title() == "Errors of the resource - Users and orders"
            await page.goto(f"{origin}/concepts.html")
            loaded = "[...document.querySelectorAll('article img')].map(image => image.naturalWidth > 0)"
            assert await page.evaluate(loaded) == [True] * 6
    assert [url for url in requested if not url.startswith((origin, "data:", "blob:"))] == []
    assert problems == []
