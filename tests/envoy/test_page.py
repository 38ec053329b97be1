"""Type the commands of docs/rest.md, against Envoy with the configuration of deploy/envoy as it is."""

import asyncio
import re
import shutil
import ssl
from pathlib import Path

import httpx
import pytest

from service.server import Server
from tests.support.envoys import PROGRAM, running_envoy
from tests.support.paths import ROOT
from tests.support.shown import is_shown

URL = "http://127.0.0.1:8080"
END_OF_STEP = "end of step"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples need curl")
@pytest.mark.skipif(not PROGRAM.exists(), reason="the package with Envoy is made for Linux")
async def test_the_commands_of_the_page_print_what_it_shows(server: Server, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "rest.md").read_text()
    found = re.findall(r"^```sh\n(.*?)^```$\n\n^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(found) == text.count("```sh") == 7
    script = "".join(f"{commands}echo; echo {END_OF_STEP}\n" for commands, _ in found)
    async with (
        httpx.AsyncClient(verify=NO_TLS) as http,
        running_envoy(tmp_path, server.port, http) as (_, url),
    ):
        typed = await asyncio.create_subprocess_exec(
            *("bash", "-u", "-c", script.replace(URL, url)), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(typed.communicate(), 60)
    printed = output.decode().split(f"\n{END_OF_STEP}\n")[:-1]
    for (commands, shown), answer in zip(found, printed, strict=True):
        assert is_shown(shown.strip(), answer.strip()), f"{commands}\n{answer}"
