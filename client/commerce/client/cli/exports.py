"""`commercectl export-users` and `export-orders`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from commerce.client.cli.commands import value_of
from commerce.client.cli.output import to_dict, write_csv
from commerce.client.cli.parameters import option_of
from commerce.client.cli.private_files import replacing
from commerce.client.cli.session import Session, quiet_option
from commerce.client.generated import methods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from commerce.client.methods import Method

_STDOUT = "-"


def _export_command(name: str, service: str, method: Method[Any, Any]) -> click.Command:
    """Return the command of an export, with an option for each filter of the RPC."""
    (items,) = method.response.DESCRIPTOR.fields
    filters = [option for field in method.request.DESCRIPTOR.fields for option in option_of(field, required=False)]
    what = items.name

    def run(*, file: str, output: str, **given: Any) -> None:
        session = click.get_current_context().ensure_object(Session)
        fields = {
            field.name: value
            for field in method.request.DESCRIPTOR.fields
            if (value := value_of(session, field, given)) is not None
        }
        shows = session.shows_progress
        with _output_file(file) as target, _progress(session, f"Exporting {what}") as report:
            with getattr(session.client, service).export(progress=report, **fields, **session.stream_options) as export:
                if output == "csv":
                    write_csv(target, items.message_type, export)
                else:
                    target.writelines(json.dumps(to_dict(item), ensure_ascii=False) + "\n" for item in export)
            done = export.progress
        again = f", from {done.resumed + 1} snapshots because the connection broke" if done.resumed else ""
        if shows:
            session.note(f"{done.count} {what} exported{again}")

    command = click.Command(
        name,
        callback=run,
        params=[
            *filters,
            click.Option(
                ["--file"], default=_STDOUT, metavar="FILE", show_default=True, help="File; - is standard output."
            ),
            click.Option(
                ["-o", "--output"],
                type=click.Choice(["jsonl", "csv"]),
                default="jsonl",
                show_default=True,
                help="JSON Lines in protobuf's JSON, or CSV with a column for each field.",
            ),
        ],
        help=f"""Export all matching {what} from one consistent snapshot, in the order of their creation.

        If the connection breaks, the export goes on after the last one, on another snapshot. FILE appears only when it
        is complete, and only you can read it.""",
        short_help=f"Export {what} as JSON Lines or CSV.",
    )
    return quiet_option(command)


@contextmanager
def _output_file(name: str) -> Iterator[TextIO]:
    """Yield the file to write, which gets its name when the block ends without an error; pipes are written directly."""
    path = Path(name)
    if name == _STDOUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    with replacing(path) as file:
        yield file


@contextmanager
def _progress(session: Session, label: str) -> Iterator[Callable[[Any], object] | None]:
    """Yield what shows how far an export is; its end is not known before."""
    if not session.shows_progress:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}  {task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=session.err, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda state: progress.update(task, completed=state.count)


EXPORT_USERS = _export_command("export-users", "users", methods.EXPORT_USERS)
EXPORT_ORDERS = _export_command("export-orders", "orders", methods.EXPORT_ORDERS)
