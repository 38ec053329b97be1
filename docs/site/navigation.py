"""The navigation of the site: every page is in it."""

from collections.abc import Iterator, Sequence
from pathlib import Path


class NavigationError(Exception):
    """The navigation and the pages do not agree."""


def complete(entries: Sequence[object], folder: Path) -> list[object]:
    """Return the navigation with the pages that its patterns stand for.

    A pattern such as `adr/*.md` stands for the pages that match and that no other entry names, sorted by name.

    Args:
        entries: pages and patterns as strings, and sections as dicts of one title and its entries.
        folder: the folder of the pages.

    Raises:
        NavigationError: it names a page that is not there or that it names elsewhere, or does not name a page.
    """
    named = [page for page in _pages(entries) if "*" not in page]
    problems = [f"{page} is in the navigation and is not there" for page in named if not (folder / page).is_file()]
    problems += [f"{page} is in the navigation twice" for page in sorted(set(named)) if named.count(page) > 1]
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")} - set(named)
    completed = [expanded for entry in entries for expanded in _expanded(entry, folder, left)]
    problems += [f"{page} is not in the navigation: add it to docs/site/zensical.toml" for page in sorted(left)]
    if problems:
        raise NavigationError("\n".join(problems))
    return completed


def _pages(entries: Sequence[object]) -> Iterator[str]:
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(value, list):
                yield from _pages(value)
            else:
                yield str(value)


def _expanded(entry: object, folder: Path, left: set[str]) -> Iterator[object]:
    """Yield what an entry stands for, and remove it from the pages that are left."""
    if isinstance(entry, dict):
        for title, value in entry.items():
            if isinstance(value, list):
                yield {title: [expanded for inner in value for expanded in _expanded(inner, folder, left)]}
            else:
                yield {title: value}
    elif "*" in str(entry):
        matching = {path.relative_to(folder).as_posix() for path in folder.glob(str(entry))} & left
        left -= matching
        yield from sorted(matching)
    else:
        yield entry
