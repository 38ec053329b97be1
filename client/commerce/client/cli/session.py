"""What all commands of one run share: the client, and how to print."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Timer
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from rich.console import Console

from commerce.client.cli.contexts import Context, ContextFile, default_path
from commerce.client.cli.tables import Listing
from commerce.client.cli.texts import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.table import Table

    from commerce.client import Client

Decorated = TypeVar("Decorated", bound="Callable[..., Any] | click.Command")
Format = Literal["table", "json", "yaml", "csv"]
FORMATS: tuple[Format, ...] = ("table", "json", "yaml", "csv")
DEFAULT_ADDRESS = "127.0.0.1:50051"
# Where output is no terminal, nothing is cut or wrapped.
_NO_TERMINAL_WIDTH = 10_000
# After which a person wants to know what the command is doing.
_SILENT_SECONDS = 1.0


@dataclass
class Session:
    """One run of `commercectl`.

    Attributes:
        config: path of the file with the contexts.
        context: name of the context to use; None for the current one.
        address: address to use instead of that of the context.
        api_key: API key to use instead of the credentials of the context.
        options: of all calls.
        format: of the output.
        quiet: print only ids, and no notes and no progress.
        yes: ask no questions.
        request_id: of the mutation that this run makes; empty before, and for reads.
        changes: whether this run changes something, so that a user must be named in full.
        line_ended: whether the line on which it was interrupted is ended.
    """

    config: Path = field(default_factory=default_path)
    context: str | None = None
    address: str | None = None
    api_key: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "table"
    quiet: bool = False
    yes: bool = False
    request_id: str = ""
    changes: bool = False
    line_ended: bool = False

    @cached_property
    def client(self) -> Client:
        """The client, which is closed when the run ends."""
        client = self.target().client(**self.options)
        click.get_current_context().find_root().call_on_close(lambda: client.close(grace=0))
        return client

    @property
    def stream_options(self) -> dict[str, Any]:
        """The options of imports, exports and watches, which have no time-out of their own."""
        return {name: value for name, value in self.options.items() if name != "timeout"}

    def target(self) -> Context:
        """Return where the service is: by the options, or else the context, or else on this machine."""
        # A context that is damaged must not prevent a command that needs none.
        found = None if self.address and not self.context else ContextFile(self.config).find(self.context)
        target = found or Context(self.address or DEFAULT_ADDRESS)
        if self.address:
            target = replace(target, address=self.address)
        if self.api_key:
            target = replace(target, api_key=self.api_key, token_file=None)
        return target

    @cached_property
    def out(self) -> Console:
        """Prints the result."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Prints notes, progress and errors."""
        return _console(stderr=True)

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown: only to people."""
        return sys.stderr.isatty() and not self.quiet

    def show(self, table: Table, *, err: bool = False) -> None:
        """Print a table, on standard output or standard error."""
        console = self.err if err else self.out
        if console.is_terminal:
            console.print(table)
            return
        with console.capture() as captured:
            console.print(table)
        for line in captured.get().splitlines():
            # Without the spaces that fill the last column.
            click.echo(line.rstrip(), err=err)

    def show_listing(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows of texts; on a terminal, the columns that fit."""
        listing = Listing(columns, rows, self.out.width if self.out.is_terminal else None)
        if listing.wraps:
            self.out.print(listing.table())
        else:
            header, *lines = listing.lines()
            # A table can be long, and rich is slow.
            click.echo("\n".join([click.style(header, bold=True), *lines]))
        if listing.left_out:
            self.note(f"the terminal is too narrow for {', '.join(listing.left_out)}; -o yaml shows all")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Say on a terminal, after a second in this block, for what it waits."""
        if not self.shows_progress:
            yield
            return
        timer = Timer(_SILENT_SECONDS, self.note, [f"waiting for {self.target().address}; Ctrl-C stops it"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def note(self, text: str) -> None:
        """Print a note for people, apart from the result."""
        if not self.quiet:
            self.err.print(text, style="dim", markup=False, highlight=False)

    def end_line(self) -> None:
        """Begin a new line, once, on a terminal that shows an unanswered question, or ^C."""
        if self.err.is_terminal and not self.line_ended:
            self.err.print()
        self.line_ended = True

    def confirm(self, question: str) -> None:
        """Ask before something that cannot be undone.

        Raises:
            click.Abort: the answer is no.
            click.UsageError: standard input is no terminal, and --yes is missing.
        """
        if self.yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError(f"{question} This cannot be undone: pass --yes to do it without a terminal.")
        click.confirm(f"{question} This cannot be undone. Continue?", abort=True, err=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _NO_TERMINAL_WIDTH, highlight=False)


class LostConnections(logging.Handler):
    """Prints as a note what the client logs when a connection breaks, and it tries again."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.WARNING)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Print a note."""
        error = getattr(record, "error", None)
        text = record.getMessage() if error is None else f"{plain(error.message)}; trying again"
        self._session.note(text)


pass_session = click.make_pass_decorator(Session)


def output_options(command: Decorated) -> Decorated:
    """Add the options that say how to print."""
    formats = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        expose_value=False,
        callback=_set_format,
        help="Format of the output.",
    )
    return formats(quiet_option(command))


def quiet_option(command: Decorated) -> Decorated:
    """Add `--quiet`."""
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_quiet,
        help="Print only ids, and neither notes nor progress.",
    )(command)


def yes_option(command: Decorated) -> Decorated:
    """Add `--yes`."""
    return click.option(
        "-y", "--yes", is_flag=True, expose_value=False, callback=_set_yes, help="Do not ask before it is done."
    )(command)


def _set_format(context: click.Context, _: click.Parameter, value: Format) -> None:
    context.ensure_object(Session).format = value


def _set_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Session).quiet = value


def _set_yes(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Session).yes = value
