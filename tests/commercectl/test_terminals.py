"""The installed program, in a process, on a terminal and in a pipe."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from commerce.client import Client
from commerce.client.cli.main import cli

from tests.support.commercectl_shell import NewUser, Shell

COMMAND = Path(sys.executable).parent / "commercectl"


@dataclass
class Terminal:
    """A program on a terminal, and what it has printed there."""

    process: "subprocess.Popen[bytes]"
    handle: int
    screen: str = ""

    def wait_for(self, text: str) -> None:
        """Read until the screen shows a text; fails if the program ends before."""
        while text not in self.screen:
            try:
                self.screen += os.read(self.handle, 4096).decode()
            except OSError:
                break  # the program has ended
        assert text in self.screen

    def type(self, text: str) -> None:
        """Type into the terminal."""
        os.write(self.handle, text.encode())


@contextmanager
def on_terminal(shell: Shell, *arguments: str) -> Iterator[Terminal]:
    """Run the program on a terminal until the block ends."""
    ours, its = pty.openpty()
    environment = {
        **os.environ,
        "COMMERCECTL_ADDRESS": shell.address,
        "COMMERCECTL_CONFIG": str(shell.config),
        "TERM": "xterm",
        "COLUMNS": "120",
    }
    process = subprocess.Popen(
        [COMMAND, *arguments], stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    )
    os.close(its)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_it_asks_before_what_cannot_be_undone(shell: Shell, client: Client, new_user: NewUser) -> None:
    user = new_user("asked")
    with on_terminal(shell, "credit", "grant", "asked", "5 EUR") as terminal:
        terminal.wait_for("Continue? [y/N]")
        terminal.type("n\n")
        assert terminal.process.wait(30) == 130
    assert not client.users.get_credit_balance(user_id=user.id)
    with on_terminal(shell, "credit", "grant", "asked", "5 EUR") as terminal:
        terminal.wait_for("Continue? [y/N]")
        terminal.type("y\n")
        terminal.wait_for("transaction_id")
    assert client.users.get_credit_balance(user_id=user.id)


def test_a_watch_on_a_terminal_is_a_table_that_ends_with_ctrl_c(shell: Shell, new_user: NewUser) -> None:
    new_user("live")
    with on_terminal(shell, "users", "watch", "--from", "earliest", "--user", "live") as terminal:
        terminal.wait_for("CREATE TIME")
        terminal.wait_for("CREATED")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(30) == 130


def test_a_reader_that_has_enough_is_no_error(shell: Shell) -> None:
    environment = {**os.environ, "COMMERCECTL_ADDRESS": shell.address, "COMMERCECTL_CONFIG": str(shell.config)}
    script = f"set -o pipefail; '{COMMAND}' export-users | head -c 1 >/dev/null; '{COMMAND}' explain | true"
    result = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == ""


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_installed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    printed = CliRunner().invoke(cli, ["completion", name]).stdout
    result = CliRunner().invoke(cli, ["completion", name, "--install"])
    assert result.exit_code == 0, result.output
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.read_text().strip() == printed.strip()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ord", "orders"),
        ("orders conf", "confirm"),
        ("explain ETAG", "ETAG_MISMATCH"),
        ("call getord", "GetOrder"),
        ("orders list --status pend", "pending"),
        ("context use mi", "mine"),
    ],
)
def test_commands_and_values_are_completed(
    line: str, expected: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run("context", "add", "mine", "127.0.0.1:1")
    monkeypatch.setenv("COMMERCECTL_CONFIG", str(shell.config))
    *words, begun = line.split()
    found = ShellComplete(cli, {}, "commercectl", "_COMMERCECTL_COMPLETE").get_completions(words, begun)
    assert expected in [item.value for item in found]


def test_bash_completes() -> None:
    script = f"""
        source <('{COMMAND}' completion bash)
        COMP_WORDS=(commercectl orders conf); COMP_CWORD=2
        _commercectl_completion '{COMMAND}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "confirm\n"
