"""Type the commands of docs/commercectl.md into a shell, against a real server and the installed program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commerce.client.cli.advice import EXIT_CODES
from commerce.client.testing import Service

from tests.support.paths import ROOT
from tests.support.shown import is_shown

PAGE = (ROOT / "docs" / "commercectl.md").read_text()
END = "end of block"


@pytest.fixture(scope="module")
def typed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The commands, what the page shows, and what they print."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["sh", "text"] * (len(blocks) // 2)
    folder = tmp_path_factory.mktemp("shell")
    script = "exec 2>&1\n" + "".join(f"{commands}echo {END}\n" for _, commands in blocks[::2])
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
    return [(blocks[2 * n][1], blocks[2 * n + 1][1], text) for n, text in enumerate(printed)]


def test_the_commands_print_what_the_page_shows(typed: list[tuple[str, str, str]]) -> None:
    assert len(typed) == PAGE.count("```sh")
    for commands, shown, printed in typed:
        assert is_shown(shown, printed), f"{commands}\n{printed}"


def test_the_page_has_all_exit_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE))
    assert rows == {str(code): meaning for code, meaning in EXIT_CODES.items()}
