"""`commercectl import-users`."""

from __future__ import annotations

import csv
import json
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from commerce.client.cli.advice import INCOMPLETE
from commerce.client.cli.session import Session, pass_session, quiet_option
from commerce.client.failures import CommerceError
from commerce.client.imports import RowError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commerce.client.imports import ImportProgress

COLUMNS = ("email", "username", "full_name", "superuser", "bio", "avatar_url", "password")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_REJECTED = ("row", "reason", "field", "message")


class _Rows:
    """The rows of a file, as an import takes them.

    Attributes:
        size: of the file in bytes.
        position: how much of it has been read.
    """

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self.size = path.stat().st_size
        self.position = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._json_lines() if self._path.suffix == ".jsonl" else self._csv()

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            self.position += len(line.encode())
            yield line

    def _csv(self) -> Iterator[dict[str, Any]]:
        lines = self._lines()
        header = next(lines, "")
        # Spreadsheets separate columns as the language of their user does.
        delimiter = max(",;\t", key=header.count)
        reader = csv.DictReader(chain([header], lines), delimiter=delimiter, strict=True)
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if unknown := [name for name in names if name not in COLUMNS]:
            raise click.UsageError(
                f"{self._path}: unknown column {unknown[0][:50]!r}; columns are {', '.join(COLUMNS)}"
            )
        if missing := {"email", "username"} - set(names):
            raise click.UsageError(f"{self._path}: column {min(missing)!r} is missing")
        reader.fieldnames = names
        try:
            yield from (self._row(cells, reader.line_num) for cells in reader)
        except csv.Error as error:
            raise RowProblem(f"{self._path}, line {reader.line_num}: {error}") from error

    def _row(self, cells: dict[Any, Any], line: int) -> dict[str, Any]:
        if None in cells or None in cells.values():
            raise RowProblem(f"{self._path}, line {line}: the row has not as many cells as the header")
        row: dict[str, Any] = {
            # A space can be part of a password.
            name: cell if name == "password" else cell.strip()
            for name, cell in cells.items()
            if cell.strip()
        }
        row["profile"] = {name: row.pop(name) for name in ("bio", "avatar_url") if name in row}
        if "superuser" in row:
            try:
                row["superuser"] = _BOOLEANS[row["superuser"].lower()]
            except KeyError:
                raise RowProblem(f"{self._path}, line {line}: superuser must be true or false") from None
        return row

    def _json_lines(self) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RowProblem(f"{self._path}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise RowProblem(f"{self._path}, line {number}: the line is not a JSON object")
            yield row


class RowProblem(Exception):
    """A line of the file cannot be read. The message says which, and why."""


class _Report:
    """Shows how far an import is, and writes the rejected rows."""

    def __init__(self, rows: _Rows, rejects: Path, progress: Progress) -> None:
        self._rows, self._path, self._progress = rows, rejects, progress
        self._task = progress.add_task("Importing", total=rows.size)
        self._file: TextIO | None = None
        self.last: ImportProgress | None = None

    def __call__(self, state: ImportProgress) -> None:
        self.last = state
        self._progress.update(self._task, completed=self._rows.position)
        if not state.failures:
            return
        from commerce.common.v1.error_reason_pb2 import ErrorReason

        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
            csv.writer(self._file).writerow(_REJECTED)
        for failure in state.failures:
            reason = ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
            csv.writer(self._file).writerow([failure.row_number, reason, failure.field, failure.message])
        self._file.flush()

    def close(self) -> None:
        """Close the file of rejected rows."""
        if self._file is not None:
            self._file.close()


@click.command("import-users")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--on-conflict",
    type=click.Choice(["skip", "update", "fail"]),
    default="skip",
    show_default=True,
    help="What to do with a row whose e-mail address a user has already.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for the reasons of rejected rows.  [default: NAME.rejects.csv beside FILE]",
)
@click.option("--resume-from", type=click.IntRange(min=1), default=1, metavar="N", help="Leave out the rows before N.")
@click.option("--encoding", default="utf-8-sig", metavar="NAME", help="Encoding of FILE.  [default: utf-8]")
@quiet_option
@pass_session
def IMPORT_USERS(  # noqa: N802 - a constant, made by click; its options
    session: Session, *, file: Path, on_conflict: str, rejects: Path | None, resume_from: int, encoding: str
) -> None:
    """Import users from FILE: .csv with a header, or .jsonl with an object on each line.

    Columns of CSV: email, username, full_name, superuser, bio, avatar_url, password. The import can be repeated: a row
    is identified by its e-mail address. The exit code is 9 if it stopped early or rows were rejected.
    """
    rejects = rejects or file.with_suffix(".rejects.csv")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    shown = session.shows_progress
    problem: Exception | None = None
    try:
        text = file.open(encoding=encoding, newline="")
    except LookupError:
        raise click.UsageError(f"there is no encoding {encoding!r}") from None
    with text, Progress(*columns, TimeRemainingColumn(), console=session.err, transient=True, disable=not shown) as bar:
        rows = _Rows(text, file)
        report = _Report(rows, rejects, bar)
        options = {key: value for key, value in session.options.items() if key != "timeout"}
        try:
            session.client.users.import_(
                iter(rows),  # type: ignore[arg-type] # what is wrong in a row is found when it is read
                on_conflict=on_conflict.upper(),  # type: ignore[arg-type] # one of the choices
                resume_from=resume_from,
                progress=report,
                **options,
            )
        except (RowProblem, RowError, UnicodeDecodeError) as error:
            problem = error
        except CommerceError as error:
            _print_counts(session, report.last)
            if error.last_committed_row is not None:
                session.err.print(f"go on with --resume-from {error.last_committed_row + 1}")
            raise
        finally:
            report.close()
    _print_counts(session, report.last)
    failed = report.last.failed if report.last else 0
    if failed:
        session.err.print(f"rejected rows: {failed}, see {rejects}", markup=False)
    if problem is not None:
        after = (report.last.last_row if report.last else resume_from - 1) + 1
        session.err.print(f"stopped: {problem}\ngo on with --resume-from {after}", markup=False)
    if failed or problem is not None:
        sys.exit(INCOMPLETE)


def _print_counts(session: Session, last: ImportProgress | None) -> None:
    created, updated, skipped = (last.created, last.updated, last.skipped) if last else (0, 0, 0)
    if not session.quiet:
        click.echo(f"{created} created, {updated} updated, {skipped} skipped")
