"""Envoy with the configuration of deploy/envoy, from the package that contains the program."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from clients.descriptors import compile_protos
from tests.support.paths import ROOT
from tests.support.processes import Process, free_port, running_program
from tests.support.waiting import eventually

PROGRAM = Path(sys.executable).parent / "envoy"
CONFIG = ROOT / "deploy" / "envoy" / "envoy.yaml"
NAME_IN_CERTIFICATE = "commerce.example.com"


def adapted(text: str, folder: Path, port: int, service_port: int, *, tls: bool) -> str:
    """Return the configuration, changed where its comments say so, with files in a folder."""
    changes = {
        "port_value: 8080}": f"port_value: {port}}}",
        "port_value: 50051}": f"port_value: {service_port}}}",
        "/etc/envoy/commerce.binpb": f"{folder}/commerce.binpb",
    }
    if tls:
        text = text.replace("#tls-in ", "").replace("#tls-out ", "")
        changes |= {
            "/etc/envoy/tls.crt": f"{folder}/tls.crt",
            "/etc/envoy/tls.key": f"{folder}/tls.key",
            "/etc/envoy/service-ca.crt": f"{folder}/service-ca.crt",
        }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.replace(NAME_IN_CERTIFICATE, "localhost")


@asynccontextmanager
async def running_envoy(
    folder: Path, service_port: int, http: httpx.AsyncClient, *, tls: bool = False
) -> AsyncIterator[tuple[Process, str]]:
    """Run Envoy in front of a service until the block ends, and yield it with its URL.

    With `tls`, the folder has the files that the configuration names.
    """
    port = free_port()
    config = folder / "envoy.yaml"
    (folder / "commerce.binpb").write_bytes(compile_protos())
    config.write_text(adapted(CONFIG.read_text(), folder, port, service_port, tls=tls))
    url = f"http{'s' if tls else ''}://localhost:{port}"
    # Without hot restarts, several can run on one machine. The log is written immediately, not every ten seconds.
    options = ["--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "warning"]
    async with running_program(str(PROGRAM), "-c", str(config), *options) as process:
        await eventually(lambda: _is_ready(process, url, http))
        yield process, url


async def _is_ready(process: Process, url: str, http: httpx.AsyncClient) -> bool:
    assert process.running, process.stderr()
    try:
        return (await http.get(f"{url}/healthz")).status_code == 200
    except httpx.ConnectError:
        return False
