"""The pages of the site: those of `docs/`, others of the repository, and the links between them."""

import re
from collections.abc import Iterator, Mapping
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
# Pages that are not in `docs/`, by their paths in the repository, and where they are on the site.
OTHERS: Mapping[str, str] = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting-vulnerabilities.md",
    "clients/typescript/README.md": "typescript-client.md",
    "deploy/envoy/README.md": "envoy.md",
}
# What pages link to and the site has in another form.
INSTEAD: Mapping[str, str] = {"README.md": "index.md", "protos/commerce": "reference/index.md"}
# Other files of the repository that pages link to. They are text, which a browser shows only by this ending.
FILES, SHOWN = "files", ".txt"

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r" *(```+|~~~+)")


class BrokenLinkError(Exception):
    """A page links to what is not in the repository."""


def write_pages(folder: Path) -> None:
    """Write the pages into a folder, with what they show and link to.

    Raises:
        BrokenLinkError: a page links to what is not there.
    """
    for path in _sources():
        if path.endswith(".md"):
            write_page(path, (ROOT / path).read_text("utf-8"), folder)
        else:
            _write(folder / place(path), (ROOT / path).read_bytes())


def place(path: str) -> str:
    """Return where a file of the repository is on the site.

    >>> place("docs/events.md"), place("docs/adr/README.md"), place("CONTRIBUTING.md")
    ('events.md', 'adr/index.md', 'contributing.md')
    >>> place("migrations/env.py"), place("protos/commerce")
    ('files/migrations/env.py.txt', 'reference/index.md')
    """
    if known := OTHERS.get(path) or INSTEAD.get(path):
        return known
    if path.startswith("docs/"):
        return re.sub(r"(^|/)README\.md$", r"\1index.md", path.removeprefix("docs/"))
    return f"{FILES}/{path}{SHOWN}"


def _sources() -> Iterator[str]:
    """Yield the paths of all files that the site has as they are, apart from those that pages link to."""
    yield from OTHERS
    for path in sorted((ROOT / "docs").rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        # Not what makes the site, nor what editors leave beside it.
        if path.is_file() and not name.startswith("docs/site/") and "/." not in name:
            yield name


def write_page(path: str, text: str, folder: Path) -> None:
    """Write a page, whose links lead to the pages of the site, and the other files that it links to.

    Args:
        path: where it is in the repository.
        text: the page.
        folder: the folder of all pages.

    Raises:
        BrokenLinkError: it links to what is not there.
    """

    def linked(link: re.Match[str]) -> str:
        target = normpath(PurePosixPath(path).parent / link[1])
        if not (ROOT / target).exists():
            raise BrokenLinkError(f"{path} links to {link[1]}, which is not in the repository")
        found = place(target)
        if found.startswith(f"{FILES}/"):
            if (ROOT / target).is_dir():
                raise BrokenLinkError(f"{path} links to the folder {link[1]}: link to a file")
            _write(folder / found, (ROOT / target).read_bytes())
        return f"]({relpath(found, PurePosixPath(place(path)).parent)}{link[2] or ''})"

    lines = (line if is_code else _LINK.sub(linked, line) for line, is_code in lines_of(text))
    _write(folder / place(path), indented("".join(lines)).encode())


def indented(text: str) -> str:
    r"""Return a page whose lists the site shows as GitHub does: what belongs to an item is indented by four spaces.

    >>> indented("1. a\n\n   ```sh\n   b\n   ```\n")
    '1. a\n\n    ```sh\n    b\n    ```\n'
    """
    lines, missing, was_code = [], 0, False
    for line, is_code in lines_of(text):
        if not (is_code and was_code):
            # The lines of a block move with the one that begins it.
            indent = len(line) - len(line.lstrip(" "))
            missing = 4 - indent if indent in {2, 3} else 0
        was_code = is_code
        lines.append(" " * missing + line if line.strip() else line)
    return "".join(lines)


def lines_of(text: str) -> Iterator[tuple[str, bool]]:
    r"""Yield the lines of a page, and whether each belongs to a fenced block of code.

    >>> [is_code for _, is_code in lines_of("a\n```text\nb\n```\nc\n")]
    [False, True, True, True, False]
    """
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence:
            yield line, True
            if found and found[1].startswith(fence) and not line.strip(" `~\n"):
                fence = ""
        else:
            fence = found[1] if found else ""
            yield line, bool(fence)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
