"""`commercectl import-users`."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from commerce.client.cli.advice import INCOMPLETE
from commerce.client.cli.session import Session, pass_session, quiet_option
from commerce.client.cli.user_files import FileError, ImportFile, Rejects
from commerce.client.failures import CommerceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from commerce.client.cli.user_files import Row
    from commerce.client.imports import ImportProgress
    from commerce.users.v1.user_import_pb2 import UserImportFailure, UserImportRow

_UNREADABLE = "UNREADABLE"


class _Importer:
    """Sends the rows of a file, writes those that are rejected, and knows where to go on.

    Args:
        session: of this run.
        file: has the rows, which have numbers; those before `resume_from` are left out.
        rejects: takes the rejected ones.

    Attributes:
        created: number of users, as are `updated` and `skipped`.
        uncounted: how many rows are processed, and not in those numbers.
        has_rows: whether the file has a row that can be found.
        next_row: number of the first row that is perhaps not processed.
        task: shows how far it is.
    """

    def __init__(self, session: Session, file: ImportFile, rejects: Rejects, bar: Progress, resume_from: int) -> None:
        self._session, self._file, self._rejects, self._bar = session, file, rejects, bar
        self.next_row = resume_from
        self.created = self.updated = self.skipped = self.uncounted = 0
        # Rows that are read, and not known to be processed.
        self._waiting: deque[Row] = deque()
        self._sent = 0
        self._problem: FileError | None = None
        self.has_rows = False
        size = file.path.stat().st_size
        # A pipe has no size.
        self._task = bar.add_task("Importing", total=size or None)

    def run(self, on_conflict: str) -> None:
        """Import the rows.

        Raises:
            FileError: the file cannot be read, or that of the rejected rows not written.
            CommerceError: the import failed.
        """
        try:
            self._send(self._messages(self.next_row), on_conflict, self._processed)
        except CommerceError as error:
            self._failed(error)
            raise
        while self._waiting:
            self._take()
        if self._problem is not None:
            raise self._problem

    def _messages(self, first: int) -> Iterator[UserImportRow]:
        try:
            for row in self._file:
                self.has_rows = True
                if row.number >= first:
                    self._waiting.append(row)
                    if row.message is not None:
                        yield row.message
        except FileError as error:
            # The rows before it are sent first.
            self._problem = error

    def _send(self, rows: Iterator[UserImportRow], on_conflict: str, progress: Any) -> None:
        self._session.client.users.import_(
            rows,
            on_conflict=on_conflict.upper(),  # type: ignore[arg-type] # one of the choices
            progress=progress,
            **self._session.stream_options,
        )

    def _processed(self, state: ImportProgress) -> None:
        """Write the rows that a call has rejected."""
        self.created, self.updated, self.skipped = state.created, state.updated, state.skipped
        self._take_sent(state.last_row, state.failures)
        self._bar.update(self._task, completed=self._file.position())

    def _take_sent(self, last: int, failures: Sequence[UserImportFailure]) -> None:
        """Take the rows up to one of those that were sent, counted from the first one."""
        by_row = {failure.row_number: failure for failure in failures}
        while self._sent < last:
            self._sent += self._waiting[0].message is not None
            self._take(by_row.get(self._sent))
        self._rejects.flush()

    def _take(self, failure: UserImportFailure | None = None) -> None:
        """Take the next row, which is processed; `failure` says why it was rejected, if it could be read."""
        from commerce.common.v1.error_reason_pb2 import ErrorReason

        row = self._waiting.popleft()
        self.next_row = row.number + 1
        if row.message is None:
            self._rejects.add(row, _UNREADABLE, "", row.problem)
        elif failure:
            reason = ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
            self._rejects.add(row, reason, failure.field, failure.message)

    def _failed(self, error: CommerceError) -> None:
        """Take the rows that a call has processed before it failed."""
        last = error.last_committed_row or 0
        again = [row for row in self._waiting if row.message is not None][: max(last - self._sent, 0)]
        if not again:
            return
        sent = self._sent
        failures: list[UserImportFailure] = []
        try:
            # The error does not list those that were rejected. Importing these rows once more does, and changes none.
            self._send(
                (row.message for row in again if row.message), "skip", lambda state: failures.extend(state.failures)
            )
        except CommerceError as other:
            self._session.err.print(
                f"which of the rows before it were rejected is not known: {other.message}", markup=False
            )
        for failure in failures:
            failure.row_number += sent
        self.uncounted = len(again) - len(failures)
        self._take_sent(last, failures)


def _known_encoding(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        "".encode(value or "utf-8")
    except LookupError:
        raise click.BadParameter(f"there is no encoding {value!r}") from None
    return value


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
    help="File for rejected rows.  [default: NAME.rejects.csv or NAME.rejects.jsonl beside FILE]",
)
@click.option("--resume-from", type=click.IntRange(min=1), default=1, metavar="N", help="Leave out the rows before N.")
@click.option(
    "--encoding",
    default="",
    metavar="NAME",
    callback=_known_encoding,
    help="Encoding of FILE, such as cp1252.  [default: UTF-8 or UTF-16]",
)
@quiet_option
@pass_session
def IMPORT_USERS(  # noqa: N802 - a constant, made by click; its options
    session: Session, *, file: Path, on_conflict: str, rejects: Path | None, resume_from: int, encoding: str
) -> None:
    """Import users from FILE: .csv with a header, or .jsonl with an object on each line.

    Columns of CSV: email, username, full_name, superuser, bio, avatar_url, password; objects have the same keys, with
    bio and avatar_url inside profile. Columns that begin with _ are left out. Rejected rows are written with the reason
    to a file of the same format, which can be corrected and imported. The import can be repeated: a row is identified
    by its e-mail address. The exit code is 9 if it stopped early or rows were rejected.
    """
    rejects = rejects or file.with_suffix(f".rejects{file.suffix}")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = not session.shows_progress
    problem: FileError | None = None
    importer: _Importer | None = None
    try:
        with (
            ImportFile(file, encoding) as source,
            Rejects(rejects, source, append=resume_from > 1) as rejected,
            Progress(*columns, console=session.err, transient=True, disable=hidden) as bar,
        ):
            importer = _Importer(session, source, rejected, bar, resume_from)
            importer.run(on_conflict)
    except FileError as error:
        problem = error
    except (CommerceError, KeyboardInterrupt, SystemExit):
        if importer is not None:
            session.end_line()
            _print_end(session, importer, rejected)
            session.err.print(f"go on with --resume-from {importer.next_row}")
        raise
    if importer is None or (problem is not None and not importer.has_rows):
        # It is another kind of file, and nothing was sent.
        raise click.UsageError(str(problem))
    _print_end(session, importer, rejected)
    if problem is not None:
        session.err.print(f"stopped: {problem}\ngo on with --resume-from {importer.next_row}", markup=False)
    if rejected.count or problem is not None:
        sys.exit(INCOMPLETE)


def _print_end(session: Session, importer: _Importer, rejects: Rejects) -> None:
    if not session.quiet:
        click.echo(f"{importer.created} created, {importer.updated} updated, {importer.skipped} skipped")
    if importer.uncounted:
        session.err.print(f"imported rows that are not in these numbers: {importer.uncounted}")
    if rejects.count:
        session.err.print(f"rejected rows: {rejects.count}, see {rejects.path}", markup=False)
