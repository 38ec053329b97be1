"""The command `commercectl`, run in this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from commerce.client.cli.main import cli

NewUser = Callable[[str], Any]


@dataclass
class Shell:
    """Runs commands on one service."""

    address: str
    config: Path

    def run(self, *arguments: str, typed: str | None = None, code: int = 0) -> Result:
        """Run a command, and expect this exit code."""
        environment = {"COMMERCECTL_ADDRESS": self.address, "COMMERCECTL_CONFIG": str(self.config)}
        result = CliRunner().invoke(cli, arguments, input=typed, env=environment, prog_name="commercectl")
        assert result.exit_code == code, f"{arguments} gave {result.exit_code}\n{result.output}\n{result.exception!r}"
        return result

    def json(self, *arguments: str) -> Any:
        """Run a command, and return what it prints as JSON."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)
