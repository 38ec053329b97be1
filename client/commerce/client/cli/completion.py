"""`commercectl completion`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
from click.shell_completion import get_completion_class

_NAME = "commercectl"
# Where each shell looks by itself: the variable that names a folder, the folder without it, and the file in it.
# zsh looks only where `fpath` says.
_PLACES = {
    "bash": ("XDG_DATA_HOME", ".local/share", f"bash-completion/completions/{_NAME}"),
    "zsh": ("ZDOTDIR", "", f".zfunc/_{_NAME}"),
    "fish": ("XDG_CONFIG_HOME", ".config", f"fish/completions/{_NAME}.fish"),
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_PLACES)))
@click.option("--install", is_flag=True, help="Write it where the shell finds it, in the home directory.")
def COMPLETION(*, shell: str, install: bool) -> None:  # noqa: N802 - a constant, made by click
    """Print what completes commands, options and values in a SHELL, or install it with --install."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click does not know {shell}")
    root = click.get_current_context().find_root().command
    script = kind(root, {}, _NAME, f"_{_NAME.upper()}_COMPLETE").source()
    if not install:
        click.echo(script)
        return
    base, default, rest = _PLACES[shell]
    path = Path(os.environ.get(base) or Path.home() / default) / rest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    # Without a limit to the width: a line is to be copied.
    click.echo(f"written to {path}; open a new shell to use it", err=True)
    if shell == "zsh":
        click.echo(
            "for zsh to look there, add these lines to .zshrc, the second only if it is not there yet:", err=True
        )
        click.echo(f"  fpath+=({shlex.quote(str(path.parent))})\n  autoload -Uz compinit && compinit", err=True)
