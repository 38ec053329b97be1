"""Checks the links of the built site, without network: pages, anchors, and that nothing is loaded from elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself, in contrast to links that a reader follows.
_LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
# Links of pages to themselves under other names: they load nothing.
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}
_URL_IN_CSS = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


@dataclass
class _Page(HTMLParser):
    """What a page has: its anchors, its links, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect from an element."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in _LOADED and given.get(_LOADED[tag]) and given.get("rel") not in _NOT_LOADED:
            self.loaded.append(given[_LOADED[tag]])


def problems_of(site: Path) -> list[str]:
    """Return what is wrong with the links of a site, each with the page that has it."""
    pages = {path.resolve(): _parsed(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        # The page for addresses that do not exist is shown at any depth, so its own links are absolute.
        if name == "404.html":
            continue
        found += [f"{name}: {problem}" for problem in _problems_of_page(path, page, pages)]
    for path in sorted(site.rglob("*.css")):
        urls = [url for groups in _URL_IN_CSS.findall(path.read_text("utf-8")) for url in groups if url]
        found += [f"{path.name}: loads {url}" for url in urls if _is_remote(url)]
    return found


def _parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    page.close()
    return page


def _problems_of_page(path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    for url in page.loaded:
        if _is_remote(url):
            yield f"loads {url}"
        elif not url.startswith("data:") and not _target(path, url).is_file():
            yield f"loads {url}, which is not there"
    for url in page.links:
        if urlsplit(url).scheme or _is_remote(url):
            continue
        target, fragment = _target(path, url), unquote(urlsplit(url).fragment)
        if not target.is_file():
            yield f"links to {url}, which is not there"
        elif fragment and target in pages and fragment not in pages[target].anchors:
            yield f"links to {url}, which has no such anchor"


def _is_remote(url: str) -> bool:
    return bool(urlsplit(url).netloc)


def _target(path: Path, url: str) -> Path:
    """Return the file that a relative link leads to."""
    linked = unquote(urlsplit(url).path)
    target = (path.parent / linked).resolve() if linked else path
    return target / "index.html" if target.is_dir() else target
