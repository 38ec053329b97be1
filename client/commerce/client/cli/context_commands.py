"""`commercectl context`: addresses and credentials with a name."""

from __future__ import annotations

from typing import Any

import click

from commerce.client.cli.contexts import AddressType, Context, ContextFile, default_path, read_secret
from commerce.client.cli.output import print_values
from commerce.client.cli.session import Session, output_options, pass_session

_FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


class _NameType(click.ParamType[str]):
    """The name of a context."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Return the names that a text can become."""
        # When a shell asks, the options of the root are parsed, but it does not run.
        contexts = ContextFile(ctx.find_root().params.get("config") or default_path()).contexts
        return [click.shell_completion.CompletionItem(name) for name in contexts if name.startswith(incomplete)]


@click.group("context")
def CONTEXT() -> None:  # noqa: N802 - a constant, made by click
    """Keep addresses and credentials under names, in a file that only you can read."""


@CONTEXT.command("add")
@click.argument("name")
@click.argument("address", metavar="HOST:PORT", type=AddressType())
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="File with the API key, which is copied; - is standard input.",
)
@click.option("--token-file", type=_FILE, metavar="FILE", help="File with a token, which each command reads again.")
@click.option("--tls/--plaintext", default=None, help="Whether to encrypt.  [default: not on this machine]")
@click.option("--ca", type=_FILE, metavar="FILE", help="Certificates of the CAs of the server.")
@click.option("--certificate", type=_FILE, metavar="FILE", help="The client's certificate.")
@click.option("--key", type=_FILE, metavar="FILE", help="The private key of the client's certificate.")
@click.option("--server-name", metavar="NAME", help="Name in the server's certificate, if it is not the host.")
@pass_session
def _add(session: Session, /, *, name: str, address: str, api_key_file: str | None, **fields: Any) -> None:
    """Add the context NAME, or replace it, and use it from now on."""
    context = Context(address, api_key=read_secret(api_key_file) if api_key_file else None, **fields)
    context.check()
    contexts = ContextFile(session.config)
    contexts.contexts[name] = context
    contexts.current = name
    contexts.save()
    session.note(f"commercectl uses {name} ({address}) from now on")


@CONTEXT.command("use")
@click.argument("name", type=_NameType())
@pass_session
def _use(session: Session, *, name: str) -> None:
    """Use the context NAME from now on."""
    contexts = ContextFile(session.config)
    context = contexts.find(name)
    contexts.current = name
    contexts.save()
    if context is not None:
        session.note(f"commercectl uses {name} ({context.address}) from now on")


@CONTEXT.command("list")
@output_options
@pass_session
def _list(session: Session) -> None:
    """List the contexts, without their secrets."""
    contexts = ContextFile(session.config)
    rows = [
        {
            "name": name,
            "current": "*" if name == contexts.current else "",
            "address": context.address,
            "credential": context.credential(),
        }
        for name, context in sorted(contexts.contexts.items())
    ]
    print_values(session, rows, ("name", "current", "address", "credential"))


@CONTEXT.command("remove")
@click.argument("name", type=_NameType())
@pass_session
def _remove(session: Session, *, name: str) -> None:
    """Remove the context NAME and its credentials."""
    contexts = ContextFile(session.config)
    contexts.find(name)
    del contexts.contexts[name]
    if contexts.current == name:
        contexts.current = None
    contexts.save()
    session.note(f"{name} is removed")
