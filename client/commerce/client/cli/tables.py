"""Tables that fit the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A column with longer cells is wrapped to this width rather than left out: at spaces, or if there are none, anywhere.
# An id has 36 characters, so it is in one piece.
_WRAPPED, _FOLDED = 24, 40
_GAP = 2


class Listing:
    """Rows of texts under headers, with those columns that fit.

    Args:
        columns: paths of fields, the most important ones first.
        rows: their cells, which must not contain control characters.
        width: of the terminal, in cells; None if everything fits.

    Attributes:
        left_out: headers of the columns that do not fit.
        wraps: whether some cells must be wrapped.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> None:
        headers = [path.rpartition(".")[2].upper().replace("_", " ") for path in columns]
        widths = [max(map(cell_len, cells)) for cells in zip(headers, *rows, strict=True)]
        narrowest = [max(map(_narrowest, cells)) for cells in zip(headers, *rows, strict=True)]
        fitting = _fitting(narrowest, width)
        self.left_out = [header for index, header in enumerate(headers) if index not in fitting]
        self.wraps = width is not None and sum(widths[index] + _GAP for index in fitting) - _GAP > width
        self._headers = [headers[index] for index in fitting]
        self._widths = [widths[index] for index in fitting]
        self._wrapped = [narrowest[index] < widths[index] for index in fitting]
        self._rows = rows if len(fitting) == len(headers) else [[row[index] for index in fitting] for row in rows]

    def lines(self) -> Iterator[str]:
        """Yield the line of the headers, and a line for each row, none of them wrapped."""
        for cells in (self._headers, *self._rows):
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, self._widths, strict=True))
            yield (" " * _GAP).join(padded).rstrip()

    def table(self, *, one_line: bool = False) -> Table:
        """Return a table whose cells are wrapped, or each cut off so that a row is one line."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for header, wrapped in zip(self._headers, self._wrapped, strict=True):
            is_whole = one_line or not (wrapped or len(self._headers) == 1)
            table.add_column(header, overflow="ellipsis" if one_line else "fold", no_wrap=is_whole)
        for row in self._rows:
            table.add_row(*map(Text, row))
        return table


def _fitting(narrowest: Sequence[int], width: int | None) -> list[int]:
    """Return the columns that fit; the first one is always one of them."""
    if width is None:
        return list(range(len(narrowest)))
    fitting: list[int] = []
    left = width + _GAP
    for index, cells in enumerate(narrowest):
        if cells + _GAP <= left or not fitting:
            fitting.append(index)
            left -= cells + _GAP
    return fitting


def _narrowest(cell: str) -> int:
    """Return the least width in which a cell can be read."""
    return min(cell_len(cell), _WRAPPED if " " in cell else _FOLDED)


def pairs() -> Table:
    """Return an empty table of names and values, one pair in a row."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
