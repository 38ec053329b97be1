"""Type the commands of docs/http.md, against a server that `commerce serve --dev` has started."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import running_command
from tests.support.shown import is_shown

URL = "http://127.0.0.1:50080"
END_OF_STEP = "end of step"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples need curl")
async def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    found = re.findall(r"^```sh\n(.*?)^```$\n\n^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 6
    async with running_command("serve", "--dev", "--port", "0", data_dir=tmp_path / "data") as process:
        port = (await process.until_logged("serving"))["http_port"]
        assert f"http://127.0.0.1:{port}/docs describes all methods in a browser" in process.stdout()
        assert f"In a browser, the console: http://127.0.0.1:{port}/console/\n" in process.stdout()
        script = "".join(f"{commands}echo; echo {END_OF_STEP}\n" for commands, _ in found)
        typed = await asyncio.create_subprocess_exec(
            *("bash", "-u", "-c", script.replace(URL, f"http://127.0.0.1:{port}")), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(typed.communicate(), 60)
        result = await process.terminate()
    assert result.status == 0
    printed = output.decode().split(f"\n{END_OF_STEP}\n")[:-1]
    for (commands, shown), answer in zip(found, printed, strict=True):
        assert is_shown(shown.strip(), answer.strip()), f"{commands}\n{answer}"
