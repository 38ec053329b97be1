"""`commercectl call`: any method that is not a stream."""

from __future__ import annotations

import sys
from typing import Any
from uuid import uuid4

import click

from commerce.client.cli.output import print_one
from commerce.client.cli.session import Session, output_options, pass_session
from commerce.client.generated.methods import ALL
from commerce.client.methods import Method

_STREAMS = {
    "ImportUsers": "import-users",
    "ExportUsers": "export-users",
    "ExportOrders": "export-orders",
    "WatchUsers": "users watch",
    "WatchOrders": "orders watch",
}


class _MethodType(click.ParamType[Method[Any, Any]]):
    """A method: `GetUser`, or with its service, `commerce.users.v1.UserService/GetUser`."""

    name = "method"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Method[Any, Any]:
        """Return the method of a name."""
        if isinstance(value, Method):
            return value
        service, _, name = value.strip("/").replace("/", ".").rpartition(".")
        found = next((method for method in ALL if _is_named(method, service, name)), None)
        return found or self.fail(f"there is no method {value!r}; commercectl call --list lists them", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Return the methods that a name can become."""
        names = (method.path.rpartition("/")[2] for method in ALL)
        return [
            click.shell_completion.CompletionItem(name)
            for name in names
            if name.lower().startswith(incomplete.lower()) and name not in _STREAMS
        ]


def _is_named(method: Method[Any, Any], service: str, name: str) -> bool:
    """Return whether a method has this name; the service may be left out, or named without its package."""
    own_service, _, own_name = method.path[1:].rpartition("/")
    return own_name.lower() == name.lower() and service in {"", own_service, own_service.rpartition(".")[2]}


def _list_methods(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        for method in ALL:
            if method.path.rpartition("/")[2] not in _STREAMS:
                click.echo(method.path[1:])
        ctx.exit()


@click.command("call")
@click.argument("method", type=_MethodType())
@click.argument("request", metavar="JSON", default="{}")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_methods, help="List the methods."
)
@output_options
@pass_session
def CALL(session: Session, *, method: Method[Any, Any], request: str) -> None:  # noqa: N802 - a constant, made by click
    """Call any METHOD with a request in protobuf's JSON.

    METHOD is its name, such as GetUser, with or without its service. JSON - is read from standard input.
    """
    from google.protobuf.json_format import Parse, ParseError

    own = method.path.rpartition("/")[2]
    if own in _STREAMS:
        raise click.UsageError(f"{own} is a stream: use commercectl {_STREAMS[own]}")
    message = method.request()
    try:
        text = sys.stdin.read() if request == "-" else request
        if not text.lstrip().startswith("{"):
            # Protobuf takes an empty list for an empty message.
            raise ParseError("it must be a JSON object")
        Parse(text, message)
    except (ParseError, UnicodeDecodeError, RecursionError) as error:
        raise click.UsageError(f"this is not a {method.request.DESCRIPTOR.name}: {error}") from error
    if method.takes_request_id and not message.validate_only:
        # Known here, so that an error can say with which id to repeat the command.
        message.request_id = session.request_id = message.request_id or str(uuid4())
    with session.waiting():
        print_one(session, session.client.call(method, message))
