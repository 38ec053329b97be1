"""Another implementation of the protocols, connect-go in `buf curl`, calls the port."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.http.conftest import Site
from tests.support.http_calls import USERS
from tests.support.paths import ROOT

BUF = Path(sys.executable).with_name("buf")


async def buf_curl(site: Site, protocol: str, path: str, request: object, *options: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", protocol, "--schema", ".", "--data", json.dumps(request), *options),
        str(site.http.base_url.join(path)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


@pytest.mark.parametrize("protocol", ["connect", "grpcweb"])
async def test_buf_reads_responses_streams_and_errors(site: Site, protocol: str) -> None:
    user = await site.grpc.create_user()
    status, stdout, stderr = await buf_curl(site, protocol, f"{USERS}/GetUser", {"id": user.id})
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["user"]["username"] == user.username
    status, stdout, stderr = await buf_curl(site, protocol, f"{USERS}/ExportUsers", {})
    assert (status, stderr) == (0, "")
    assert user.username in stdout
    status, _, stderr = await buf_curl(site, protocol, f"{USERS}/GetUser", {"username": "nobody"})
    # Its exit status is the code of the error, eight times.
    assert status == 5 * 8
    assert '"type": "google.rpc.ErrorInfo"' in stderr
