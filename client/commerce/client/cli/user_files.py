"""Read users to import from CSV files with a header or from JSON Lines files, and write the rejected rows."""

import codecs
import csv
import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TextIO

from commerce.client.cli.csv_records import CsvReader, UnreadableLine
from commerce.client.cli.private_files import open_private
from commerce.users.v1.user_import_pb2 import UserImportRow

COLUMNS = ("email", "username", "full_name", "superuser", "bio", "avatar_url", "password")
_PROFILE_COLUMNS = ("bio", "avatar_url")
# A line break in another column comes from a quote that was opened by mistake.
_MULTI_LINE_COLUMNS = ("bio", "password")
_MAX_BIO_LENGTH = 2000
# How much of a wrong name in the header is shown: of a file in another format, it can be the whole file.
_MAX_SHOWN = 50
# Far more than the fields of a user can have, and far less than the service accepts in one message: a larger one would
# end the call, and all rows after it would not be imported.
_MAX_ROW_BYTES = 100_000
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


# A byte that is not part of the encoding, as `_escape_bytes` decodes it.
_UNDECODABLE = re.compile("[\udc00-\udcff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _escape_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode bytes that are not part of an encoding so that they can be encoded again.

    The error handler `surrogateescape` does the same for bytes from 0x80 on only; in UTF-16, others can be wrong too.
    """
    match error:
        # At the end of a file that was cut off, nothing can be blamed on a row.
        case UnicodeDecodeError(object=data, start=start, end=end, reason=reason) if reason != "truncated data":
            return "".join(chr(0xDC00 + byte) for byte in data[start:end]), end
        case UnicodeEncodeError(object=text, start=start, end=end) if _UNDECODABLE.fullmatch(text[start]):
            return bytes([ord(text[start]) - 0xDC00]), start + 1
    raise error


_ESCAPED_BYTES = "commerce.escaped_bytes"
codecs.register_error(_ESCAPED_BYTES, _escape_bytes)


class FileError(Exception):
    """A file cannot be read or written. The message is one line."""


class RowError(ValueError):
    """A row cannot be read as a user."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, in its original form and as a message; if it is invalid, `problem` replaces the message."""

    # Empty rows are not counted.
    number: int
    original: Any
    message: UserImportRow | None
    problem: str = ""


class Rejection(NamedTuple):
    """Why a row was rejected. Each field, prefixed with an underscore, is a column in the file of rejected rows."""

    row: int
    reason: str
    field: str
    message: str


_REJECTION_COLUMNS = tuple(f"_{name}" for name in Rejection._fields)


class _Format(Protocol):
    """A file format, with rows as lists of cells or as lines of JSON."""

    newline: str | None

    def originals(self, file: TextIO) -> Iterator[tuple[int, Any]]:
        """Yield each row that is not empty, in its original form, with the number of its line; raises FileError."""

    def values(self, original: Any) -> dict[str, Any]:
        """Return the fields of a row as JSON values; raises RowError."""

    def write_header(self, file: TextIO) -> None:
        """Write the header of the file of rejected rows, if the format has headers."""

    def write_rejected(self, file: TextIO, rejection: Rejection, original: Any) -> None:
        """Write a rejected row."""


class _Csv:
    # CsvReader reads line breaks itself.
    newline: str | None = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: list[str] = []

    def originals(self, file: TextIO) -> Iterator[tuple[int, list[str] | UnreadableLine]]:
        reader = CsvReader(file, self._is_plausible)
        header = next(reader, (1, []))[1]
        if isinstance(header, UnreadableLine):
            raise FileError(f"{self._path}: the header has {header.problem}")
        # Spreadsheets begin cells with a capital letter.
        self._header = [name.strip().lower() for name in header]
        # Spreadsheets write empty columns at the end, if one of them was used once.
        while self._header and not self._header[-1]:
            del self._header[-1]
        self._check_header()
        yield from reader

    def _is_plausible(self, cells: Sequence[str]) -> bool:
        """Return whether these cells of several lines can be a row, and no quote was opened by mistake."""
        if len(_without_empty_end(cells, len(self._header))) != len(self._header):
            return False
        for name, cell in zip(self._header, cells, strict=False):
            if name in COLUMNS and name not in _MULTI_LINE_COLUMNS and len(cell.strip().splitlines()) > 1:
                return False
            if name == "bio" and len(cell) > _MAX_BIO_LENGTH:
                return False
        return True

    def _check_header(self) -> None:
        names = [name for name in self._header if name and not name.startswith("_")]
        if unknown := [name for name in names if name not in COLUMNS]:
            shown = f"{unknown[0][:_MAX_SHOWN]!r}{'…' if len(unknown[0]) > _MAX_SHOWN else ''}"
            raise FileError(f"{self._path}: unknown column {shown}; allowed columns: {', '.join(COLUMNS)}")
        if len(set(names)) < len(names):
            raise FileError(f"{self._path}: two columns have the same name")
        if missing := {"email", "username"} - set(names):
            raise FileError(f"{self._path}: column {min(missing)!r} is missing")

    def values(self, original: Sequence[str] | UnreadableLine) -> dict[str, Any]:
        if isinstance(original, UnreadableLine):
            raise RowError(f"the line has {original.problem}")
        cells = _without_empty_end(original, len(self._header))
        if len(cells) != len(self._header):
            raise RowError(f"the row has {len(cells)} columns, but the header has {len(self._header)}")
        for number, (name, cell) in enumerate(zip(self._header, cells, strict=True), 1):
            if not name and cell.strip():
                raise RowError(f"column {number} has no name in the header, but the row has a value there")
        values: dict[str, Any] = {
            # A space can be part of a password.
            name: cell if name == "password" else cell.strip()
            for name, cell in zip(self._header, cells, strict=True)
            if name in COLUMNS and cell.strip()
        }
        values["profile"] = {name: values.pop(name) for name in _PROFILE_COLUMNS if name in values}
        if "superuser" in values:
            values["superuser"] = _boolean("superuser", values["superuser"])
        return values

    def write_header(self, file: TextIO) -> None:
        csv.writer(file).writerow([*_REJECTION_COLUMNS, *self._without_rejection(self._header)])

    def write_rejected(self, file: TextIO, rejection: Rejection, original: Sequence[str] | UnreadableLine) -> None:
        cells = original.cells if isinstance(original, UnreadableLine) else original
        csv.writer(file).writerow([*rejection, *self._without_rejection(cells)])

    def _without_rejection(self, cells: Sequence[str]) -> list[str]:
        """Return the cells of a row without the columns that an earlier rejection added."""
        # A row may have fewer or more cells than the header.
        names = zip_longest(self._header[: len(cells)], cells)
        return [cell for name, cell in names if name not in _REJECTION_COLUMNS]


class _JsonLines:
    newline: str | None = None

    def originals(self, file: TextIO) -> Iterator[tuple[int, str]]:
        yield from ((number, text) for number, line in enumerate(file, 1) if (text := line.strip()))

    def values(self, text: str) -> dict[str, Any]:
        return {name: value for name, value in _json_object(text).items() if not name.startswith("_")}

    def write_header(self, file: TextIO) -> None:
        """Write nothing: the file has no header."""

    def write_rejected(self, file: TextIO, rejection: Rejection, text: str) -> None:
        try:
            original = _json_object(text)
        except RowError:
            original = {"_line": text}
        clean = {name: value for name, value in original.items() if name not in _REJECTION_COLUMNS}
        rejected = dict(zip(_REJECTION_COLUMNS, rejection, strict=True)) | clean
        undecodable = set(_UNDECODABLE.findall(text))
        # Half of a surrogate pair, which JSON can have, but no encoding.
        line = _SURROGATE.sub(
            lambda half: half[0] if half[0] in undecodable else f"\\u{ord(half[0]):04x}",
            json.dumps(rejected, ensure_ascii=False),
        )
        file.write(f"{line}\n")


def _without_empty_end(cells: Sequence[str], length: int) -> Sequence[str]:
    """Return the cells without the empty ones beyond a length."""
    return cells if any(cell.strip() for cell in cells[length:]) else cells[:length]


def _boolean(column: str, cell: str) -> bool:
    try:
        return _BOOLEANS[cell.lower()]
    except KeyError:
        raise RowError(f"{column} must be true or false") from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RowError(f"the line is not JSON: {error}") from error
    except RecursionError as error:
        raise RowError("the line has too many nested objects or lists") from error
    if not isinstance(found, dict):
        raise RowError("the line is not a JSON object")
    return found


def _encoding_of(start: bytes) -> str:
    """Return the encoding of a file by its first bytes: UTF-16 as some spreadsheets write it, or else UTF-8."""
    # Its byte order mark begins with that of UTF-16.
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a byte order mark, the zero bytes of the first letters tell.
    if start[1::2] == b"\0\0":
        return "utf-16-le"
    if start[::2] == b"\0\0":
        return "utf-16-be"
    return "utf-8-sig"


class ImportFile:
    """Reads the rows of a file one by one.

    Args:
        path: the file.
        encoding: its encoding; empty to detect UTF-8 and UTF-16.

    Raises:
        FileError: the file name has an unknown extension, the header is wrong, or the file cannot be read further.
    """

    def __init__(self, path: Path, encoding: str = "") -> None:
        self.path = path
        self._encoding = encoding
        self.format: _Format
        match path.suffix.lower():
            case ".csv":
                self.format = _Csv(path)
            case ".jsonl":
                self.format = _JsonLines()
            case _:
                raise FileError(f"{path} must end in .csv or .jsonl")

    def __enter__(self) -> Self:
        self._bytes = self.path.open("rb")
        self._encoding = self._encoding or _encoding_of(self._bytes.peek(4)[:4])
        # Bytes that are not of this encoding are preserved, so that the rejected row is written unchanged.
        self._file = TextIOWrapper(
            self._bytes, encoding=self._encoding, errors=_ESCAPED_BYTES, newline=self.format.newline
        )
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def position(self) -> int:
        """Return the number of bytes read so far."""
        # A pipe has no position.
        return self._bytes.tell() if self._bytes.seekable() else 0

    def __iter__(self) -> Iterator[Row]:
        try:
            for number, (line, original) in enumerate(self.format.originals(self._file), 1):
                yield self._row(number, line, original)
        except UnicodeError as error:
            raise FileError(f"{self.path} is not {self._encoding} up to its end: {error}") from error
        except OSError as error:
            raise FileError(f"{self.path}: {error.strerror}") from error

    def _row(self, number: int, line: int, original: Any) -> Row:
        from google.protobuf.json_format import ParseDict, ParseError

        try:
            values = self.format.values(original)
            self._require_decoded(values)
            message = ParseDict(values, UserImportRow())
            if message.ByteSize() > _MAX_ROW_BYTES:
                raise RowError(f"the row has {message.ByteSize()} bytes; a user has at most {_MAX_ROW_BYTES}")
            return Row(number, original, message)
        except (ParseError, ValueError) as error:
            return Row(number, original, None, f"line {line}: {' '.join(str(error).split())}")

    def _require_decoded(self, values: dict[str, Any]) -> None:
        profile = values.get("profile")
        for value in (*values.values(), *(profile.values() if isinstance(profile, dict) else ())):
            if isinstance(value, str) and (found := _UNDECODABLE.search(value)):
                encoding = self._encoding.removesuffix("-sig").upper()
                raise RowError(
                    f"the byte 0x{ord(found[0]) - 0xDC00:02X} is not {encoding}; name the encoding of the file with"
                    " --encoding, such as cp1252 for spreadsheets in Western Europe"
                )


class Rejects:
    """Writes rejected rows unchanged, each with its number and the reason. The first rejected row creates the file.

    Attributes:
        count: how many rows were written.
        path: of the file.
    """

    def __init__(self, path: Path, source: ImportFile, *, append: bool) -> None:
        # The same file also by another name: a link, or the name in another case.
        if path.exists() and path.samefile(source.path):
            raise FileError(f"cannot write the rejected rows to {path}: it is the file to import")
        self.count = 0
        self.path = path
        self._format = source.format
        self._append = append
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file:
            with self._named_errors():
                self._file.close()

    def add(self, row: Row, reason: str, field: str, message: str) -> None:
        """Write a row; raises FileError."""
        with self._named_errors():
            self._file = self._file or self._open()
            self._format.write_rejected(self._file, Rejection(row.number, reason, field, message), row.original)
        self.count += 1

    def flush(self) -> None:
        """Hand what was written over to the system, which may refuse it; raises FileError."""
        if self._file:
            with self._named_errors():
                self._file.flush()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What the system says of a link that is not followed is about loops of links.
            problem = "it is a link, which is not followed" if error.errno == errno.ELOOP else error.strerror
            raise FileError(f"cannot write the rejected rows to {self.path}: {problem}") from error

    def _open(self) -> TextIO:
        # Rows can contain passwords.
        handle = open_private(self.path, append=self._append)
        file = os.fdopen(handle, "w", encoding="utf-8", errors=_ESCAPED_BYTES, newline="")
        if os.fstat(handle).st_size == 0:
            self._format.write_header(file)
        return file
