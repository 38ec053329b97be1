"""The entry point of `commercectl`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from commerce.client import ClientClosed, CommerceError
from commerce.client.cli.advice import EXIT_CODES, exit_code
from commerce.client.cli.call import CALL
from commerce.client.cli.completion import COMPLETION
from commerce.client.cli.context_commands import CONTEXT
from commerce.client.cli.contexts import default_path
from commerce.client.cli.credit import CREDIT
from commerce.client.cli.explain import EXPLAIN
from commerce.client.cli.exports import EXPORT_ORDERS, EXPORT_USERS
from commerce.client.cli.failures import print_error
from commerce.client.cli.health import HEALTH
from commerce.client.cli.imports import IMPORT_USERS
from commerce.client.cli.notes import NOTES
from commerce.client.cli.orders import ORDERS
from commerce.client.cli.session import Session
from commerce.client.cli.users import USERS

_TIMEOUT_SECONDS = 10.0
_INTERRUPTED = 130
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
        except (KeyboardInterrupt, click.Abort):
            session.note("stopped")
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
    "--address", metavar="HOST:PORT", envvar="COMMERCECTL_ADDRESS", help="Address to use instead of the context's."
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
    key = os.environ.get("COMMERCECTL_API_KEY") or None
    if api_key_file is not None:
        key = api_key_file.read_text(encoding="ascii").strip()
    session = ctx.ensure_object(Session)
    session.config, session.context, session.address, session.api_key = config, context, address, key
    session.options = {"timeout": timeout, "on_behalf_of": on_behalf_of}


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
    cli(prog_name="commercectl")
