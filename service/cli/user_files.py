"""Files of users to import: CSV with a header, or JSON lines; and files of the rows that were rejected."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from commerce.users.v1.user_import_pb2 import UserImportRow
from google.protobuf.json_format import ParseDict, ParseError

COLUMNS = ("email", "username", "full_name", "superuser", "bio", "avatar_url", "password")
_REJECTION = ("_row", "_reason", "_field", "_message")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class FileError(Exception):
    """A file cannot be read or written; the message is one line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, as it was written and as a message; `problem` says why it is none."""

    number: int
    original: Any
    message: UserImportRow | None
    problem: str = ""


class ImportFile:
    """Reads the rows of a file one by one.

    Raises:
        FileError: the file is of no kind that is known, or its header is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_csv = path.suffix.lower() == ".csv"
        if not self.is_csv and path.suffix.lower() != ".jsonl":
            raise FileError(f"{path} must end in .csv or .jsonl")
        self.header: list[str] = []

    def __enter__(self) -> Self:
        self._bytes = self.path.open("rb")
        newline = "" if self.is_csv else None
        # What is not UTF-8 survives until its row is rejected, and is written there as it was.
        self._file = TextIOWrapper(self._bytes, encoding="utf-8-sig", errors="surrogateescape", newline=newline)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def position(self) -> int:
        """Return how many bytes were read so far."""
        return self._bytes.tell()

    def __iter__(self) -> Iterator[Row]:
        lines = self._csv_rows() if self.is_csv else self._json_lines()
        for number, (original, values, problem) in enumerate(lines, 1):
            if problem:
                yield Row(number, original, None, problem)
                continue
            try:
                yield Row(number, original, ParseDict(values, UserImportRow()))
            except (ParseError, ValueError) as error:
                yield Row(number, original, None, " ".join(str(error).split()))

    def _csv_rows(self) -> Iterator[tuple[list[str], dict[str, Any], str]]:
        reader = csv.reader(self._file)
        try:
            self.header = [name.strip() for name in next(reader, [])]
            self._check_header()
            for cells in reader:
                if not cells:
                    continue
                problem = ""
                if len(cells) != len(self.header):
                    problem = f"has {len(cells)} columns, not the {len(self.header)} of the header"
                row = {name: cell for name, cell in zip(self.header, cells, strict=False) if name in COLUMNS and cell}
                superuser = row.pop("superuser", "")
                values: dict[str, Any] = {name: row[name] for name in row if name not in {"bio", "avatar_url"}}
                values["profile"] = {name: row[name] for name in ("bio", "avatar_url") if name in row}
                if superuser:
                    values["superuser"] = _BOOLEANS.get(superuser.lower())
                    if values["superuser"] is None:
                        problem = problem or "superuser must be true or false"
                yield cells, values, problem
        except csv.Error as error:
            raise FileError(f"{self.path}: line {reader.line_num}: {error}") from error

    def _check_header(self) -> None:
        names = [name for name in self.header if not name.startswith("_")]
        if unknown := [name for name in names if name not in COLUMNS]:
            raise FileError(f"{self.path}: column {unknown[0]!r} is none of {', '.join(COLUMNS)}")
        if len(set(names)) < len(names):
            raise FileError(f"{self.path}: two columns have one name")
        if missing := {"email", "username"} - set(names):
            raise FileError(f"{self.path}: there is no column {min(missing)!r}")

    def _json_lines(self) -> Iterator[tuple[Any, dict[str, Any], str]]:
        for line in self._file:
            text = line.strip()
            if not text:
                continue
            try:
                found = json.loads(text)
            except ValueError as error:
                yield text, {}, f"is not JSON: {error}"
                continue
            if isinstance(found, dict):
                yield found, {name: value for name, value in found.items() if not name.startswith("_")}, ""
            else:
                yield text, {}, "is not a JSON object"


class Rejects:
    """Writes rejected rows as they were, each with its number and the reason. There is no file unless there is one."""

    def __init__(self, path: Path, source: ImportFile, *, append: bool) -> None:
        if path.resolve() == source.path.resolve():
            raise FileError(f"{path} cannot take the rejected rows: it is the file to import")
        self.count = 0
        self._path = path
        self._source = source
        self._append = append
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def add(self, row: Row, reason: str, field: str, message: str) -> None:
        """Write a row; raises FileError."""
        self.count += 1
        rejection = (row.number, reason, field, message)
        try:
            file = self._file = self._file or self._open()
            if self._source.is_csv:
                csv.writer(file).writerow([*rejection, *self._without_rejection(row.original)])
            else:
                original = row.original if isinstance(row.original, dict) else {"_line": row.original}
                clean = {name: value for name, value in original.items() if name not in _REJECTION}
                rejected = dict(zip(_REJECTION, rejection, strict=True)) | clean
                file.write(json.dumps(rejected, ensure_ascii=False) + "\n")
        except OSError as error:
            raise FileError(f"{self._path}: {error.strerror}") from error

    def _open(self) -> TextIO:
        # Rows can hold passwords.
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if self._append else os.O_TRUNC)
        handle = os.open(self._path, flags, 0o600)
        file = os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="")
        if self._source.is_csv and file.tell() == 0:
            csv.writer(file).writerow([*_REJECTION, *self._without_rejection(self._source.header)])
        return file

    def _without_rejection(self, cells: Sequence[str]) -> list[str]:
        """Return cells without those about an earlier rejection, and whatever is beyond the header."""
        names = zip_longest(self._source.header[: len(cells)], cells)
        return [cell for name, cell in names if name not in _REJECTION]
