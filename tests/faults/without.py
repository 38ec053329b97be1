"""Run the `commerce` command without a defence, for the controls of experiments.

    python -m tests.faults.without service.rpc.retry:MAX_ATTEMPTS=1 serve --port 0

Each argument before the command replaces an attribute of a module, or of a class in it, by a Python literal or by
another object that is written in the same form (`module:attribute`).
"""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any

import service  # noqa: F401 - sets the environment variables that gRPC reads when it is imported


def without(*defences: str) -> Sequence[str]:
    """Return the command line that runs the `commerce` command with these replacements."""
    return (sys.executable, "-m", "tests.faults.without", *defences)


def _replace(defence: str) -> None:
    place, _, value = defence.partition("=")
    module, _, path = place.partition(":")
    owner_path, _, name = path.rpartition(".")
    owner: Any = import_module(module)
    if owner_path:
        owner = attrgetter(owner_path)(owner)
    # So that a control fails whose defence was renamed.
    getattr(owner, name)
    setattr(owner, name, _value(value))


def _value(text: str) -> Any:
    module, colon, path = text.partition(":")
    if colon and module.replace(".", "").isidentifier():
        return attrgetter(path)(import_module(module))
    return ast.literal_eval(text)


def main() -> None:
    """Replace what is named, then run the command."""
    while len(sys.argv) > 1 and "=" in sys.argv[1]:
        _replace(sys.argv.pop(1))
    # After the replacements, because this imports the service.
    from service.cli.main import main as command  # noqa: PLC0415

    command()


if __name__ == "__main__":
    main()
