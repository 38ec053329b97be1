"""Split CSV text into records, so that a mistake in a line costs this line and no other.

The csv module of Python reads a quote that was opened by mistake up to the next one, perhaps thousands of lines later,
and stops at a field of 128 KiB. This reader blames the line with the quote, and continues with the next line.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TextIO

# A record of several lines is not longer: further away, the next quote does not belong to it.
_MAX_RECORD_LENGTH = 1_000_000
_DELIMITERS = (",", ";", "\t")
_OPENING_QUOTE = re.compile(r' *"')
_UP_TO_QUOTE = re.compile(r'((?:[^"]|"")*+)("?)')
# Spreadsheets write, and expect, this line before the header where the delimiter depends on the country.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)
_STRAY_QUOTE = 'a quote (") that is not closed, or is closed before the end of its cell'
_IMPLAUSIBLE = 'a line break within quotes (") where none can be, or a quote that is not closed'


@dataclass(frozen=True, slots=True)
class UnreadableLine:
    """A line that is not part of a readable record: what it has, and the text between its delimiters."""

    problem: str
    cells: Sequence[str]


class _StrayQuote(Exception):
    """A quote does not enclose a cell."""


class CsvReader:
    """Yields the records of a file, each with the number of its first line; records of empty cells are left out.

    The delimiter is the one that the first line has most: a comma, a semicolon or a tab.

    Args:
        file: the file, opened with `newline=""`.
        is_plausible: returns whether a record of several lines can be right; if not, its first line is unreadable.
    """

    def __init__(self, file: TextIO, is_plausible: Callable[[Sequence[str]], bool]) -> None:
        self._file = file
        self._is_plausible = is_plausible
        # Lines that were read as part of a record that was none.
        self._unread: deque[str] = deque()
        self._line_number = 0
        self._set_delimiter(self._detected_delimiter())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, list[str] | UnreadableLine]:
        while line := self._next_line():
            number = self._line_number
            record = self._record(line)
            cells = record.cells if isinstance(record, UnreadableLine) else record
            if any(cell.strip() for cell in cells):
                return number, record
        raise StopIteration

    def _detected_delimiter(self) -> str:
        # A byte order mark remains where the encoding was given.
        line = self._next_line().removeprefix("\ufeff")
        if found := _SEPARATOR_LINE.match(line):
            return found[1]
        self._return_lines([line])
        return max(_DELIMITERS, key=line.count)

    def _set_delimiter(self, delimiter: str) -> None:
        self._delimiter = delimiter
        escaped = re.escape(delimiter)
        self._plain_cell = re.compile(rf"([^{escaped}\r\n]*)({escaped}|\r\n|\r|\n|$)")
        self._after_quote = re.compile(rf" *({escaped}|\r\n|\r|\n|$)")

    def _next_line(self) -> str:
        line = self._unread.popleft() if self._unread else self._file.readline()
        self._line_number += bool(line)
        return line

    def _return_lines(self, lines: Sequence[str]) -> None:
        lines = [line for line in lines if line]
        self._unread.extendleft(reversed(lines))
        self._line_number -= len(lines)

    def _record(self, line: str) -> list[str] | UnreadableLine:
        if '"' not in line:
            return line.rstrip("\r\n").split(self._delimiter)
        further: list[str] = []
        problem = _STRAY_QUOTE
        try:
            record = self._quoted_record(line, further)
            if not further or self._is_plausible(record):
                return record
            problem = _IMPLAUSIBLE
        except _StrayQuote:
            pass
        self._return_lines(further)
        return UnreadableLine(problem, line.rstrip("\r\n").split(self._delimiter))

    def _quoted_record(self, line: str, further: list[str]) -> list[str]:
        """Return the record that begins with this line; `further` receives the other lines that were read."""
        cells: list[str] = []
        lines = self._lines(line, further)
        text, position = next(lines), 0
        while True:
            if opening := _OPENING_QUOTE.match(text, position):
                parts: list[str] = []
                text, position = _quoted_cell(text, opening.end(), lines, parts)
                end = self._after_quote.match(text, position)
                if not end:
                    raise _StrayQuote
                cells.append("".join(parts).replace('""', '"'))
                delimiter = end[1]
            else:
                end = self._plain_cell.match(text, position)
                # The pattern matches any text.
                assert end  # noqa: S101
                cells.append(end[1])
                delimiter = end[2]
            if delimiter != self._delimiter:
                return cells
            position = end.end()

    def _lines(self, line: str, further: list[str]) -> Iterator[str]:
        """Yield a line and those after it; raises _StrayQuote after the last one, and when they become too long."""
        length = 0
        while line and length <= _MAX_RECORD_LENGTH:
            length += len(line)
            yield line
            line = self._next_line()
            further.append(line)
        raise _StrayQuote


def _quoted_cell(text: str, position: int, lines: Iterator[str], parts: list[str]) -> tuple[str, int]:
    """Add the content of a quoted cell to `parts`, and return the line and the position after the closing quote."""
    while True:
        found = _UP_TO_QUOTE.match(text, position)
        # The pattern matches any text.
        assert found  # noqa: S101
        parts.append(found[1])
        if found[2]:
            return text, found.end()
        text, position = next(lines), 0
