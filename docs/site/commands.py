"""The reference of the commands `commerce` and `commercectl`: what each says with `--help`."""

from collections.abc import Iterator

import click
from commerce.client.cli.main import cli

from service.cli.main import main

_WIDTH = 100


def command_pages() -> dict[str, str]:
    """Return the pages of the commands, by their paths."""
    return {
        "reference/commerce.md": _page(
            "commerce", main, "The command of the service. [Operations](../operations.md) says when each is needed."
        ),
        "reference/commercectl.md": _page(
            "commercectl", cli, "The command for callers. [commercectl](../commercectl.md) has examples."
        ),
    }


def _page(name: str, command: click.Command, introduction: str) -> str:
    parts = [f"# The command {name}", f"{introduction} This is what each says with `--help`."]
    for words, text in _helps(name, command, None):
        parts += [f"## {words}", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def _helps(name: str, command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Yield the words of a command and of those below it, and the help of each."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None and not found.hidden:
                yield from _helps(inner, found, context)
