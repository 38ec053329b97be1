"""The HTTP port of a process: start, drain, several workers, and what is said if it cannot be opened."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections import Counter

import httpx
import pytest

from service.server import StartError
from tests.http.conftest import NO_TLS, Site, running_site
from tests.support.databases import Observer
from tests.support.http_calls import USERS
from tests.support.locks import holding
from tests.support.logs import logged
from tests.support.paths import ROOT
from tests.support.processes import run_command, running_command, serving
from tests.support.waiting import eventually

GET_USER, CREATE_USER = f"{USERS}/GetUser", f"{USERS}/CreateUser"
NEW_USER = {"user": {"email": "ada@example.com", "username": "ada"}, "password": "correct horse"}
LOCK_USERS = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"


async def test_a_port_in_use_is_named(database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port} for HTTP: the port is in use"):
            async with running_site(database_url, http_port=port):
                pass


async def test_without_the_setting_no_library_is_loaded() -> None:
    script = (
        # All that the server imports of it (`make layers`).
        "import sys, service.http.loading\n"
        "print(sorted(name for name in ('connectrpc', 'uvicorn', 'h11', 'pyqwest') if name in sys.modules))"
    )
    command = [sys.executable, "-c", script]
    loaded = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


async def test_without_the_extra_the_missing_package_is_named(database_url: str) -> None:
    # Python then imports it as if it was not installed.
    program = (
        sys.executable,
        "-c",
        "import sys; sys.modules['uvicorn'] = None; from service.__main__ import main; main()",
    )
    result = await run_command("serve", "--port", "0", database_url=database_url, program=program, http_port=0)
    assert result.status == 1
    assert "COMMERCE_HTTP_PORT needs the package uvicorn: install commerce-service[http]" in result.stderr


async def test_a_folder_that_cannot_be_written_is_named(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(StartError, match=r"COMMERCE_HTTP_PORT needs a folder for a Unix socket: .*set TMPDIR"):
        async with running_site(database_url):
            pass


async def test_sigterm_lets_running_calls_finish_and_leaves_nothing_behind(
    database_url: str, observer: Observer
) -> None:
    async with (
        serving(database_url, http_port=0, max_connection_age=0) as process,
        httpx.AsyncClient(timeout=30, verify=NO_TLS) as http,
        httpx.AsyncClient(timeout=30, verify=NO_TLS) as idle,
    ):
        url = f"http://127.0.0.1:{(await process.until_logged('serving'))['http_port']}"
        assert (await idle.post(url + GET_USER, json={"username": "nobody"})).status_code == 404
        async with http.stream("POST", f"{url}{USERS}/WatchUsers", json={"now": True}) as watch:
            lines = watch.aiter_lines()
            await anext(lines)
            async with holding(database_url, LOCK_USERS):
                calling = asyncio.ensure_future(http.post(url + CREATE_USER, json=NEW_USER))
                await observer.until_waiting(1)
                process.send(signal.SIGTERM)
                await process.until_logged("draining")
                last = [json.loads(line) async for line in lines][-1]
            assert last["error"]["details"][0]["reason"] == "SERVER_DRAINING"
            assert last["error"]["details"][0]["metadata"]["cursor"]
        response = await calling
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        with pytest.raises(httpx.ConnectError):
            await http.post(url + GET_USER, json={})
        result = await process.end()
    assert (result.status, result.logged("stopped")) == (0, [result.logged("stopped")[0]])
    assert not [line for line in result.stderr.splitlines() if '"level":"error"' in line]


async def test_a_draining_server_answers_what_comes_on_open_connections(database_url: str) -> None:
    """As for gRPC's clients: until they have left, no request is refused."""
    async with (
        serving(database_url, http_port=0, max_connection_age=20) as process,
        httpx.AsyncClient(timeout=30, verify=NO_TLS) as http,
    ):
        url = f"http://127.0.0.1:{(await process.until_logged('serving'))['http_port']}{GET_USER}"
        assert "connection" not in (await http.post(url, json={"username": "nobody"})).headers
        process.send(signal.SIGTERM)
        await process.until_logged("draining")
        last = await http.post(url, json={"username": "nobody"})
        assert (last.status_code, last.headers["connection"]) == (404, "close")
        # No client is left, so it need not wait.
        assert (await process.end()).status == 0


async def test_every_worker_serves_http_on_one_port(database_url: str) -> None:
    async with running_command(
        *("serve", "--port", "0", "--workers", "2"), database_url=database_url, http_port=0, max_connection_age=0
    ) as process:
        port = (await process.until_logged("serving with workers"))["http_port"]

        async def answered_by() -> Counter[int]:
            async with httpx.AsyncClient(verify=NO_TLS) as http:
                response = await http.post(f"http://127.0.0.1:{port}{GET_USER}", json={"username": "nobody"})
                assert response.status_code == 404
            return Counter(line["worker"] for line in process.logged("call"))

        # Linux gives each new connection to one of them.
        async def both() -> bool:
            return len(await answered_by()) == 2

        await eventually(both)
        assert (await process.terminate()).status == 0


async def test_a_refused_request_is_logged_without_what_it_contains(site: Site) -> None:
    with logged() as log:
        response = await site.http.post("/secret-path", json={"password": "secret"}, headers={"x-api-key": "secret"})
        line = await log.line(event="request refused", x_request_id=response.headers["x-request-id"])
    assert (line["path"], line["status"]) == ("unknown", 404)
    assert "secret" not in log.output.getvalue()
