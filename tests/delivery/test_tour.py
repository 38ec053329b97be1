"""Type the commands of docs/tour.md, and run the example of docs/calling.md, against a real server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:50051"
END_OF_STEP = "end of step, status"
TOUR_SECONDS = 120


def blocks(document: str) -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block of a document."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / document).read_text(), re.DOTALL | re.MULTILINE)


@dataclass
class Step:
    commands: str
    answer: str = ""


def steps() -> list[Step]:
    """Return the blocks of commands, each with the block of output that follows it."""
    found: list[Step] = []
    for language, text in blocks("tour.md"):
        if language == "sh":
            found.append(Step(text))
        else:
            found[-1].answer = text
    # The first defines `call` with grpcurl, the second with buf: one of them is enough, and buf is installed.
    assert "grpcurl" in found[0].commands
    assert "buf curl" in found[1].commands
    return found[1:]


def is_shown(shown: str, output: str) -> bool:
    """Return whether this is the output shown, in which `…` stands for anything."""
    return re.fullmatch(re.escape(shown).replace("…", ".+?"), output, re.DOTALL) is not None


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that is started as `make run` starts it, on a free port and without data."""
    environment = {**os.environ, "COMMERCE_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    command = [str(BIN / "commerce"), "serve", "--dev", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        welcome = next(line for line in server.stdout if "listens on" in line)
        try:
            yield welcome.split("listens on ")[1].split()[0]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def outcomes(address: str) -> list[tuple[str, int]]:
    """The output and the last exit status of each step, all typed into one shell."""
    script = "".join(f"{step.commands}echo {END_OF_STEP} $?\n" for step in steps())
    script = script.replace(ADDRESS, address).replace(".venv/bin", str(BIN))
    shell = ["bash", "-u", "-c", f"exec 2>&1\n{script}"]
    # The tour waits for what it watches: it must fail, not wait forever.
    typed = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True, timeout=TOUR_SECONDS)
    pieces = re.split(rf"{END_OF_STEP} (\d+)\n", typed.stdout)
    return [(output, int(status)) for output, status in zip(pieces[:-1:2], pieces[1::2], strict=True)]


def test_the_commands_of_the_tour_print_what_it_shows(outcomes: list[tuple[str, int]]) -> None:
    for step, (output, status) in zip(steps(), outcomes, strict=True):
        assert is_shown(step.answer, output), f"{step.commands}\n{output}"
        assert (status != 0) == ('"code"' in step.answer), step.commands


@pytest.mark.usefixtures("outcomes")
def test_the_python_example_prints_what_its_page_shows(address: str) -> None:
    (language, example), (_, shown) = blocks("calling.md")
    assert language == "python"
    command = [sys.executable, "-c", example.replace(ADDRESS, address)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert is_shown(shown, printed.stdout), printed.stdout
