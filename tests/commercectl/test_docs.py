"""Type the commands of docs/commercectl.md into a shell, against a real server and the installed program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commerce.client.cli.advice import EXIT_CODES
from commerce.client.testing import Service

from tests.support.documents import blocks_of
from tests.support.paths import ROOT
from tests.support.shown import is_shown

DOCUMENT = "docs/commercectl.md"
END = "end of block"


@pytest.fixture(scope="module")
def typed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The commands, what the page shows, and what they print."""
    blocks = [block for block in blocks_of(DOCUMENT) if block.shown is not None]
    folder = tmp_path_factory.mktemp("shell")
    script = "exec 2>&1\n" + "".join(f"{block.text}echo {END}\n" for block in blocks)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COMMERCECTL_CONFIG": str(folder / "contexts.json"),
    }
    output = subprocess.run(
        ["bash", "-u", "-c", script.replace("127.0.0.1:50051", service.address)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.replace(service.address, "127.0.0.1:50051")
    printed = output.split(f"{END}\n")[:-1]
    return [(block.text, block.shown or "", text) for block, text in zip(blocks, printed, strict=True)]


def test_the_commands_print_what_the_page_shows(typed: list[tuple[str, str, str]]) -> None:
    for commands, shown, printed in typed:
        assert is_shown(shown, printed), f"{commands}\n{printed}"


def test_the_page_has_all_exit_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / DOCUMENT).read_text(), re.MULTILINE))
    assert rows == {str(code): meaning for code, meaning in EXIT_CODES.items()}
