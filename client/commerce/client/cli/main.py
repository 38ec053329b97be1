"""The entry point of `commercectl`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import click

from commerce.client import ClientClosed, CommerceError
from commerce.client.cli.advice import EXIT_CODES, exit_code
from commerce.client.cli.call import CALL
from commerce.client.cli.completion import COMPLETION
from commerce.client.cli.context_commands import CONTEXT
from commerce.client.cli.contexts import AddressType, default_path, read_secret
from commerce.client.cli.credit import CREDIT
from commerce.client.cli.explain import EXPLAIN
from commerce.client.cli.exports import EXPORT_ORDERS, EXPORT_USERS
from commerce.client.cli.failures import print_error
from commerce.client.cli.health import HEALTH
from commerce.client.cli.imports import IMPORT_USERS
from commerce.client.cli.notes import NOTES
from commerce.client.cli.orders import ORDERS
from commerce.client.cli.session import LostConnections, Session
from commerce.client.cli.users import USERS

if TYPE_CHECKING:
    from types import FrameType

_TIMEOUT_SECONDS = 10.0
_INTERRUPTED = 130
_AGAIN_SECONDS = 1.0
# SIGHUP: its terminal was closed. Windows does not have it.
_ENDING_SIGNALS = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())


class _Root(click.Group):
    """Turns errors of calls into a block of text and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        session = ctx.ensure_object(Session)
        try:
            result = super().invoke(ctx)
            # Here, where a reader that is gone is no error.
            sys.stdout.flush()
        except CommerceError as error:
            print_error(session, error)
            ctx.exit(exit_code(error))
        except ClientClosed:
            ctx.exit(_INTERRUPTED)
        except BrokenPipeError:
            # The reader, such as `head`, has what it wants. Nothing more is written, also not when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{named}{error.strerror or error}") from error
        except UnicodeEncodeError as error:
            # The operating system passes on any bytes; in messages, texts are UTF-8.
            raise click.UsageError("an argument is not text in UTF-8") from error
        except (KeyboardInterrupt, click.Abort):
            session.end_line()
            session.note("stopped")
            if session.request_id:
                session.err.print(f"the write may have happened; repeat with --request-id {session.request_id}")
            ctx.exit(_INTERRUPTED)
        return result


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.option(
    "--context", metavar="NAME", envvar="COMMERCECTL_CONTEXT", help="Context to use instead of the current one."
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    envvar="COMMERCECTL_ADDRESS",
    type=AddressType(),
    help="Address to use instead of the context's.",
)
@click.option(
    "--api-key-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the API key to use; COMMERCECTL_API_KEY is a key itself.",
)
@click.option("--on-behalf-of", metavar="ID", help="Id of the user to act for, which needs a permission.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=_TIMEOUT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="For each call with all its attempts; imports, exports and watches wait longer.",
)
@click.option(
    "--config",
    metavar="FILE",
    envvar="COMMERCECTL_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    default=default_path,
    help="File with the contexts.  [default: contexts.json in the user's configuration]",
)
@click.version_option(package_name="commerce-client", prog_name="commercectl")
@click.pass_context
def cli(
    ctx: click.Context,
    *,
    context: str | None,
    address: str | None,
    api_key_file: Path | None,
    on_behalf_of: str | None,
    timeout: float,
    config: Path,
) -> None:
    """Work with the user and order services.

    Calls go to the current context (`commercectl context add`), or else to 127.0.0.1:50051.
    """
    key = read_secret(api_key_file) if api_key_file else os.environ.get("COMMERCECTL_API_KEY") or None
    session = ctx.ensure_object(Session)
    session.config, session.context, session.address, session.api_key = config, context, address, key
    session.options = {"timeout": timeout, "on_behalf_of": on_behalf_of}
    log, handler = logging.getLogger("commerce.client"), LostConnections(session)
    log.addHandler(handler)
    ctx.call_on_close(lambda: log.removeHandler(handler))


for _command in (
    USERS,
    ORDERS,
    CREDIT,
    NOTES,
    IMPORT_USERS,
    EXPORT_USERS,
    EXPORT_ORDERS,
    CALL,
    EXPLAIN,
    CONTEXT,
    HEALTH,
    COMPLETION,
):
    cli.add_command(_command)


def main() -> None:
    """Run `commercectl`."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, _end)
    _prepare_output()
    cli(prog_name="commercectl")


def _end(number: int, _: FrameType | None) -> None:
    """End as after an exception: unfinished files are removed, and the cursor of the terminal is shown again."""
    # Python drops an exception that comes while an object is finalized. Then the signal must come again.
    again = Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    sys.exit(128 + number)


def _prepare_output() -> None:
    """Make standard output and standard error take all that is printed."""
    if sys.stdout is None or sys.stderr is None:
        # The program was started without them.
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the program ends
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            if stream.isatty():
                stream.reconfigure(errors="replace")
            else:
                # In any locale: other programs and files get the same everywhere.
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
