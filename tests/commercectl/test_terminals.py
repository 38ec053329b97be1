"""The installed program, in a process, on a terminal and in a pipe."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from commerce.client import Client
from commerce.client.cli.main import cli

from tests.support.both_clients import ITEM
from tests.support.commercectl_shell import NewUser, Shell
from tests.support.processes import free_port

COMMAND = Path(sys.executable).parent / "commercectl"


class Terminal:
    """A program on a terminal, and what it has printed there.

    Args:
        process: the program.
        handle: of our side of the terminal, which is read all the time, because a program waits if nobody reads.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", handle: int) -> None:
        self.process = process
        self._handle = handle
        self._screen = b""
        self._has_ended = False
        self._changed = Condition()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._has_ended:
            try:
                data = os.read(self._handle, 65536)
            except OSError:
                data = b""  # the program has ended
            with self._changed:
                self._screen += data
                self._has_ended = not data
                self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows a text; fails if the program ends before."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._has_ended or text.encode() in self._screen, 60)
            assert text.encode() in self._screen, self._screen

    def lines(self) -> list[str]:
        """Wait for the end of the program, and return what is on the screen, without styles."""
        self._reader.join(60)
        assert self._has_ended
        return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", self._screen.decode()).splitlines()

    def type(self, text: str) -> None:
        """Type into the terminal."""
        os.write(self._handle, text.encode())


@contextmanager
def on_terminal(shell: Shell, *arguments: str, width: int = 120) -> Iterator[Terminal]:
    """Run commercectl on a terminal of some width until the block ends."""
    environment = {"COMMERCECTL_ADDRESS": shell.address, "COMMERCECTL_CONFIG": str(shell.config), "COLUMNS": str(width)}
    with program_on_terminal(COMMAND, *arguments, environment=environment) as terminal:
        yield terminal


@contextmanager
def program_on_terminal(*command: str | Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """Run a program on a terminal until the block ends."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", **environment},
        start_new_session=True,
    )
    os.close(its)
    try:
        terminal = Terminal(process, ours)
        yield terminal
    finally:
        process.kill()
        process.wait()
        terminal.lines()
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


def test_a_table_fits_a_narrow_terminal(shell: Shell, new_user: NewUser, client: Client) -> None:
    order = client.orders.create(user_id=new_user("narrow").id, items=[ITEM])
    with on_terminal(shell, "orders", "list", "--user", "narrow", width=60) as terminal:
        headers, row, *note = terminal.lines()
        assert headers.split() == ["ORDER", "NUMBER", "STATUS", "TOTAL", "AMOUNT", "CREATE", "TIME"]
        assert row.startswith(f"{order.order_number}  PENDING  ")
        assert " ".join(note).startswith("the terminal is too narrow for USER ID, ID;")
        assert max(map(len, terminal.lines())) <= 60


def test_an_import_that_is_interrupted_says_where_to_go_on(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    os.mkfifo(file)
    with on_terminal(shell, "import-users", str(file)) as terminal, file.open("w") as rows:
        rows.write("email,username\n")
        rows.writelines(f"i{n}@example.com,interrupted.{n}\n" for n in range(2500))
        rows.flush()
        terminal.wait_for("Importing")
        while client_count(shell) < 2000:
            time.sleep(0.05)
        terminal.process.send_signal(signal.SIGINT)
        lines = terminal.lines()
        assert terminal.process.wait(30) == 130
    assert "2000 created, 0 updated, 0 skipped" in lines
    assert "go on with --resume-from 2001" in lines


def client_count(shell: Shell) -> int:
    """Return how many users of the import exist."""
    return len(shell.json("users", "search", "interrupted", "--limit", "0"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_export_that_is_ended_leaves_no_file(
    number: signal.Signals, code: int, shell: Shell, tmp_path: Path
) -> None:
    shell.address = f"127.0.0.1:{free_port()}"
    with on_terminal(shell, "export-orders", "--file", str(tmp_path / "orders.jsonl")) as terminal:
        terminal.wait_for("trying again")
        assert list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))
        terminal.process.send_signal(number)
        assert terminal.process.wait(30) == code
    assert not list(tmp_path.iterdir())


def test_a_command_that_waits_says_for_what(shell: Shell) -> None:
    shell.address = f"127.0.0.1:{free_port()}"
    with on_terminal(shell, "users", "list") as terminal:
        terminal.wait_for(f"waiting for {shell.address}")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.lines()[-1] == "stopped"
        assert terminal.process.wait(30) == 130


def test_without_standard_output_it_does_what_it_should(shell: Shell) -> None:
    environment = {**os.environ, "COMMERCECTL_ADDRESS": shell.address, "COMMERCECTL_CONFIG": str(shell.config)}
    script = f"'{COMMAND}' users list --limit 0 >&- && PYTHONIOENCODING=ascii '{COMMAND}' call --list >&- 2>&-"
    result = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == ""


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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory for a shell that finds commercectl."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{COMMAND.parent}:{os.environ['PATH']}")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_after_the_installation(home: Path) -> None:
    installed = subprocess.run([COMMAND, "completion", "zsh", "--install"], capture_output=True, text=True, check=True)
    # What it says to add.
    added = [line.strip() for line in installed.stderr.splitlines() if line.startswith("  ")]
    (home / ".zshrc").write_text("\n".join([*added, "PROMPT='ready> '"]))
    with program_on_terminal("zsh", "-d", environment={"COLUMNS": "200"}) as terminal:
        terminal.wait_for("ready> ")
        # Completed, then printed: Ctrl-A goes to the beginning of the line.
        terminal.type("commercectl orders conf\t\x01echo completed: \n")
        terminal.wait_for("completed: commercectl orders confirm")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.usefixtures("home")
def test_fish_completes_after_the_installation() -> None:
    subprocess.run([COMMAND, "completion", "fish", "--install"], check=True)
    result = subprocess.run(
        ["fish", "-c", "complete -C 'commercectl orders conf'"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("confirm\t")
