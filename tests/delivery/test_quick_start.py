"""Type the commands of README.md, docs/quick-start.md and docs/metrics.md, and run their programs, on a new checkout.

`make run` is what starts the server, without data.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.documents import Block, blocks_of
from tests.support.paths import ROOT
from tests.support.processes import running_command
from tests.support.shown import is_shown

BIN = Path(sys.executable).parent
# What starts the server, or takes longer than all tests together.
NOT_TYPED = ("make run", "make test", "make site")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the examples need curl")


@dataclass(frozen=True)
class Ports:
    """The ports of a server, for those that the documents name."""

    grpc: int
    http: int
    metrics: int

    def used_by(self, text: str) -> str:
        """Return a text with the ports of this server."""
        for documented, port in ((50051, self.grpc), (50080, self.http), (50090, self.metrics)):
            text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{port}")
        return text


@pytest.fixture(scope="module")
async def ports(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ports]:
    data = tmp_path_factory.mktemp("new") / "data"
    async with running_command("serve", "--dev", "--port", "0", data_dir=data) as process:
        line = await process.until_logged("serving")
        yield Ports(line["port"], line["http_port"], line["metrics_port"])
        result = await process.terminate()
    assert result.status == 0


def test_make_run_is_the_command_that_the_tests_use() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nrun: ")[2].splitlines()[1]
    assert recipe.strip() == "@exec $(BIN)/commerce serve --dev"


@pytest.mark.parametrize("document", ["README.md", "docs/quick-start.md", "docs/metrics.md"])
async def test_what_the_document_shows_is_printed(document: str, ports: Ports) -> None:
    blocks = [block for block in blocks_of(document) if block.language in {"sh", "python"}]
    typed = [block for block in blocks if not block.text.startswith(NOT_TYPED)]
    assert typed
    for block in typed:
        printed = await run(block, ports)
        # What one command shows without an example must at least be something.
        assert is_shown((block.shown or "…").strip(), printed.strip()), f"{block}\n{printed}"


async def run(block: Block, ports: Ports) -> str:
    """Run a block, and return what it prints."""
    text = ports.used_by(block.text)
    if block.language == "python":
        command = [sys.executable, "-c", text]
    else:
        command = ["bash", "-eu", "-c", text.replace(".venv/bin", str(BIN))]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, problems = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"{block}\n{problems.decode()}"
    return printed.decode()
