"""The `commerce` command, run in this process."""

import asyncio
from pathlib import Path

from click.testing import CliRunner

from service.cli.main import main
from tests.support.logs import log_everything
from tests.support.processes import CommandResult


async def invoke_command(*arguments: str | Path) -> CommandResult:
    """Run the command in a thread, which starts faster than a process; a server can answer it from the event loop."""
    try:
        # In a thread: the command runs its own event loop.
        result = await asyncio.to_thread(CliRunner().invoke, main, list(map(str, arguments)))
    finally:
        # The command has configured logging for itself.
        log_everything()
    return CommandResult(result.exit_code, result.stdout, result.stderr)
