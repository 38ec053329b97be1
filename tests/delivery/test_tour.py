"""Type the commands of docs/tour.md, and run the examples in Python of other pages, against a real server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.documents import blocks_of
from tests.support.paths import ROOT
from tests.support.shown import is_shown

BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:50051"
BUF, GRPCURL = "buf", "grpcurl"
# The package that contains grpcurl is made for one kind of machine.
needs_grpcurl = pytest.mark.skipif(
    not (BIN / "grpcurl").exists(), reason="grpcurl is installed on Linux on x86_64 only"
)
# How grpcurl shows the errors of the tour: with their details decoded.
ILLEGAL_TRANSITION = """ERROR:
  Code: FailedPrecondition
  Message: cannot ship an order in state PENDING; allowed next states: CONFIRMED, CANCELLED
  Details:
  1)\t{…"reason":"ILLEGAL_TRANSITION"}
  2)\t{…"violations":[{"type":"ILLEGAL_TRANSITION","subject":"orders/…}]}
"""
PERMISSION_MISSING = """ERROR:
  Code: PermissionDenied
  Message: the permission orders.write is missing for key:warehouse
  Details:
  1)\t{…"reason":"PERMISSION_MISSING"}
"""
GRPCURL_ERRORS = {"failed_precondition": ILLEGAL_TRANSITION, "permission_denied": PERMISSION_MISSING}
END_OF_STEP = "end of step, status"
TOUR_SECONDS = 120


def blocks(document: str) -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block of a document."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


@dataclass
class Step:
    commands: str
    answer: str = ""

    def is_for(self, tool: str) -> bool:
        """Return whether only this tool prints what the step reads."""
        return tool == BUF and "base64" in self.commands


def steps(tool: str) -> list[Step]:
    """Return the blocks of commands for a tool, each with the block of output that follows it."""
    found: list[Step] = []
    for language, text in blocks("docs/tour.md"):
        if language == "sh":
            found.append(Step(text))
        else:
            found[-1].answer = text
    with_grpcurl, with_buf, *others = found
    assert "grpcurl" in with_grpcurl.commands
    assert "buf curl" in with_buf.commands
    return [with_buf if tool == BUF else with_grpcurl, *others]


@pytest.fixture(scope="module", params=[BUF, pytest.param(GRPCURL, marks=needs_grpcurl)])
def tool(request: pytest.FixtureRequest) -> str:
    """The program that makes the calls."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def environment(tool: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of the server and of the shell, with a folder for the data that is empty."""
    return {**os.environ, "COMMERCE_DATA_DIR": str(tmp_path_factory.mktemp(f"data-{tool}"))}


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    """Address of a server that is started as `make run` starts it, on a free port and without data."""
    command = [str(BIN / "commerce"), "serve", "--dev", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        welcome = next(line for line in server.stdout if "listens on" in line)
        try:
            yield welcome.split("listens on ")[1].split()[0]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def outcomes(tool: str, address: str, environment: dict[str, str]) -> list[tuple[str, int]]:
    """The output and the last exit status of each step, all typed into one shell."""
    script = "".join(f"{step.commands}echo {END_OF_STEP} $?\n" for step in steps(tool))
    script = script.replace(ADDRESS, address).replace(".venv/bin", str(BIN))
    script = script.replace("grpcurl -plaintext", f"{BIN}/grpcurl -plaintext")
    shell = ["bash", "-u", "-c", f"exec 2>&1\n{script}"]
    # The tour waits for what it watches: it must fail, not wait forever.
    typed = subprocess.run(
        shell, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=TOUR_SECONDS
    )
    pieces = re.split(rf"{END_OF_STEP} (\d+)\n", typed.stdout)
    return [(output, int(status)) for output, status in zip(pieces[:-1:2], pieces[1::2], strict=True)]


def test_the_commands_of_the_tour_print_what_it_shows(tool: str, outcomes: list[tuple[str, int]]) -> None:
    for step, (output, status) in zip(steps(tool), outcomes, strict=True):
        error = re.search(r'"code": "(\w+)"', step.answer)
        assert (status != 0) == bool(error) or step.is_for(BUF), step.commands
        if tool == BUF:
            assert is_shown(step.answer, output), f"{step.commands}\n{output}"
        elif error:
            assert is_shown(GRPCURL_ERRORS[error[1]], output), f"{step.commands}\n{output}"
        elif not step.is_for(BUF):
            # It writes an empty message on several lines.
            assert is_shown(step.answer, re.sub(r"\{\s*\}", "{}", output)), f"{step.commands}\n{output}"


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize(
    "document", ["docs/calling.md", "docs/python-client.md", "docs/events.md", "docs/import-export.md"]
)
def test_the_python_examples_print_what_their_page_shows(
    document: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The others have tests of their own, or are only parts of a program (test_code_blocks.py).
    found = [block for block in blocks_of(document) if block.language == "python" and block.shown is not None]
    assert found
    for block in found:
        printed = run_python(block.text, address)
        assert is_shown(block.shown or "", printed), f"{block.text}\n{printed}"


def run_python(example: str, address: str) -> str:
    """Run an example, and return what it prints."""
    # As a caller runs it: without the service's settings for gRPC.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    command = [sys.executable, "-c", example.replace(ADDRESS, address)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.usefixtures("outcomes")
def test_the_example_on_the_front_page_of_the_client_runs(address: str) -> None:
    (example,) = (block.text for block in blocks_of("client/README.md") if block.language == "python")
    assert "ORD-" in run_python(example, address)


def test_the_whole_program_of_a_caller_is_short() -> None:
    example = next(block.text for block in blocks_of("docs/calling.md") if block.language == "python")
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 25
