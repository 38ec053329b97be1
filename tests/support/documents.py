"""The blocks of code in the documents."""

from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.paths import ROOT

# Documents beside those in `docs/`. The changelog has no code.
_OTHERS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "client/README.md",
    "clients/typescript/README.md",
)
# Languages whose blocks can show what the block before them prints.
_OUTPUT = {"text", "json"}
# Languages of blocks that print something.
_PROGRAMS = {"sh", "python", "ts"}
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        document: the path of its document.
        line: the number of its first line.
        language: the language that it names; empty if it names none, as indented blocks do.
        text: its lines.
        shown: the block after it, with nothing between them, which shows what it prints.
        is_output: whether it is such a block itself.
    """

    document: str
    line: int
    language: str
    text: str
    shown: str | None = None
    is_output: bool = False

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """Return the paths of all documents that people write."""
    pages = [*ROOT.glob("deploy/*/README.md"), *(ROOT / "docs").rglob("*.md")]
    return [*_OTHERS, *sorted(path.relative_to(ROOT).as_posix() for path in pages)]


def blocks_of(document: str) -> list[Block]:
    """Return the blocks of a document, in its order."""
    blocks: list[Block] = []
    for token, follows_block in _code((ROOT / document).read_text()):
        language, line = token.info.strip(), (token.map or [0])[0] + 1
        is_output = follows_block and language in _OUTPUT and bool(blocks) and blocks[-1].language in _PROGRAMS
        if is_output:
            before = blocks.pop()
            blocks.append(Block(document, before.line, before.language, before.text, token.content))
        blocks.append(Block(document, line, language, token.content, is_output=is_output))
    return blocks


def _code(text: str) -> Iterator[tuple[Token, bool]]:
    """Yield the tokens of the blocks, and whether each follows another block immediately."""
    before = None
    for token in _MARKDOWN.parse(text):
        if token.type in {"fence", "code_block"}:
            yield token, before in {"fence", "code_block"}
        before = token.type
