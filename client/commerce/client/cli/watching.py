"""`commercectl users watch` and `commercectl orders watch`."""

from __future__ import annotations

import csv
import json
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live

from commerce.client import FileCursorStore
from commerce.client.cli.commands import value_of
from commerce.client.cli.output import csv_columns, csv_row, print_yaml, row_of, to_dict
from commerce.client.cli.parameters import option_of
from commerce.client.cli.session import Session, output_options
from commerce.client.cli.tables import Listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.table import Table

    from commerce.client.methods import Method

# More than a terminal has.
_MOST_LINES = 500


def watch_command(service: str, method: Method[Any, Any], columns: Sequence[str]) -> click.Command:
    """Return the command that watches the events of a service, with an option for each filter of the RPC."""
    oneofs = {field.name for oneof in method.request.DESCRIPTOR.oneofs for field in oneof.fields}
    filters = [field for field in method.request.DESCRIPTOR.fields if field.name not in oneofs]
    event = method.response.DESCRIPTOR.fields_by_name["event"].message_type

    def run(*, start: str, cursor_file: Path | None, limit: int, **given: Any) -> None:
        session = click.get_current_context().ensure_object(Session)
        fields = {field.name: value for field in filters if (value := value_of(session, field, given)) is not None}
        store = FileCursorStore(cursor_file) if cursor_file else None
        watch = getattr(session.client, service).watch(
            start=start, cursor_store=store, **fields, **session.stream_options
        )
        with watch:
            show = _live if session.format == "table" and sys.stdout.isatty() and not session.quiet else _lines
            show(session, _first(watch, limit), event, columns)

    command = click.Command(
        "watch",
        callback=run,
        params=[
            *(option for field in filters for option in option_of(field, required=False)),
            click.Option(
                ["--from", "start"],
                type=click.Choice(["now", "earliest"]),
                default="now",
                show_default=True,
                help="Where to start without a stored cursor.",
            ),
            click.Option(
                ["--cursor-file"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Keep the position in FILE, and go on there the next time.",
            ),
            click.Option(
                ["--limit"], type=click.IntRange(min=0), default=0, metavar="N", help="End after N events; 0 for never."
            ),
        ],
        help=f"""Show the events of {service} as they happen, until Ctrl-C.

        It goes on after lost connections and restarts of the service, without gaps. On a terminal, the last events are
        a table that is kept up to date; otherwise, each event is a line: of text, JSON or CSV, as --output says.""",
        short_help=f"Show the events of {service} as they happen.",
    )
    return output_options(command)


def _first(watch: Any, limit: int) -> Iterator[Any]:
    for number, event in enumerate(watch, 1):
        yield event
        if number == limit:
            # It is printed, so the next run begins after it.
            watch.commit()
            return


def _live(session: Session, events: Iterator[Any], _: Any, columns: Sequence[str]) -> None:
    last: deque[list[str]] = deque(maxlen=_MOST_LINES)

    def table() -> Table:
        # Now, because the terminal may have got another size.
        rows = list(last)[-max(session.out.height - 2, 1) :]
        return Listing(columns, rows, session.out.width).table(one_line=True)

    session.note("Ctrl-C ends it")
    with Live(table(), console=session.out, auto_refresh=False) as live:
        for event in events:
            last.append(row_of(columns, event))
            live.update(table(), refresh=True)


def _lines(session: Session, events: Iterator[Any], descriptor: Any, columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")

    def line(event: Any) -> None:
        click.echo("  ".join(row_of(columns, event)))

    def document(event: Any) -> None:
        click.echo("---")
        print_yaml(to_dict(event))

    show: dict[str, Callable[[Any], object]] = {
        "table": line,
        "json": lambda event: click.echo(json.dumps(to_dict(event), ensure_ascii=False)),
        "yaml": document,
        "csv": lambda event: writer.writerow(csv_row(event)),
    }
    if session.format == "csv" and not session.quiet:
        writer.writerow(csv_columns(descriptor))
    for event in events:
        if session.quiet:
            click.echo(event.id)
        else:
            show[session.format](event)
        # A reader such as `jq` gets each event when it happens.
        sys.stdout.flush()
