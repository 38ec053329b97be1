"""The block of text that says why a command failed, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from commerce.client.cli.advice import advice_for
from commerce.client.cli.texts import plain, visible
from commerce.client.errors import ClientTimeout
from commerce.client.failures import OUTCOME_TEXT, CommerceError, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commerce.client.cli.session import Session


def print_error(session: Session, error: CommerceError) -> None:
    """Print an error on standard error: its reason, what is wrong, its fields, the outcome, and what to do."""
    code = error.code.name
    title = f"Error: {error.reason or code}" + (f" ({code})" if error.reason and error.reason != code else "")
    session.err.print(Text(title, style="bold red"))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(width=2)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(session, error):
        table.add_row("", Text(name), Text(visible(text, lines=True)))
    session.show(table, err=True)


def _what(session: Session, error: CommerceError) -> str:
    if isinstance(error, ClientTimeout) and error.message == "Deadline Exceeded":
        return f"no answer from {session.target().address} within {session.options['timeout']:g} s"
    return plain(error.message)


def _lines(session: Session, error: CommerceError) -> Iterator[tuple[str, str]]:
    violations = error.failure.violations
    # The message is a list of them.
    yield "what", f"{len(violations)} fields are wrong" if len(violations) > 1 else _what(session, error)
    if len(violations) > 1:
        yield from (("field", f"{violation.field}: {violation.description}") for violation in violations)
    if error.failure.resource_name:
        yield "resource", error.failure.resource_name
    yield from error.metadata.items()
    if isinstance(error.__cause__, CommerceError):
        yield "because", plain(error.__cause__.message)
    for note in getattr(error, "__notes__", ()):
        yield "is it", note
    yield "outcome", OUTCOME_TEXT[error.outcome]
    if error.outcome == Outcome.UNKNOWN and session.request_id:
        yield "repeat with", f"--request-id {session.request_id}"
    if advice := advice_for(error):
        yield "what to do", advice
    if error.retry_after is not None:
        yield "repeat after", f"{error.retry_after:.1f} s"
    if error.reason:
        yield "more", f"commercectl explain {error.reason}"
    if error.x_request_id:
        yield "in the log", f"x-request-id {error.x_request_id}"
