"""A serving process with TLS and on a Unix socket: what it refuses to serve, its drain, and `commerce health`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from trustme import LeafCert

from service.rpc.transport.tls import TlsFiles
from tests.support.certificates import Authority, chain, replace, tls_channel, write_certificate, write_files
from tests.support.processes import Process, run_command, running_command, serving
from tests.support.waiting import eventually

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is refused
NO_TLS = "serving other machines without TLS: the network between can read and change calls"
NO_IDENTITIES = "serving other machines without identities: any program that reaches the port may do everything"


@dataclass
class Tls:
    """Certificates of a server and its clients, and the settings that name them."""

    server: Authority
    clients: Authority
    files: TlsFiles

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "tls_certificate_file": self.files.certificate,
            "tls_key_file": self.files.key,
            "tls_client_ca_file": self.files.client_ca,
            "tls_reload_interval": 0.1,
        }


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    server, clients = Authority(), Authority()
    return Tls(server, clients, write_files(tmp_path, server.server(), clients.pem))


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket, which that of `tmp_path` may not."""
    with TemporaryDirectory() as name:
        yield Path(name)


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


async def is_answered(channel: grpc.aio.Channel) -> bool:
    stub: Any = HealthStub(channel)
    try:
        await stub.Check(HealthCheckRequest(), timeout=5)
    except grpc.aio.AioRpcError as error:
        assert error.code() == StatusCode.UNAVAILABLE  # noqa: PT017 - another error is another failure
        return False
    return True


# What other machines reach


@pytest.mark.parametrize(
    ("allowed", "missing"),
    [
        ({}, {"COMMERCE_ALLOW_PLAINTEXT", "COMMERCE_ALLOW_ANONYMOUS"}),
        ({"allow_plaintext": True}, {"COMMERCE_ALLOW_ANONYMOUS"}),
        ({"allow_anonymous": True}, {"COMMERCE_ALLOW_PLAINTEXT"}),
    ],
    ids=["neither", "plaintext", "anonymous"],
)
async def test_other_machines_are_not_served_without_tls_and_identities(
    database_url: str, allowed: dict[str, Any], missing: set[str]
) -> None:
    ended = await run_command("serve", "--host", EVERYWHERE, "--port", "0", database_url=database_url, **allowed)
    assert ended.status == 1
    *_, line = ended.stderr.splitlines()
    assert line.startswith(f"Error: COMMERCE_HOST={EVERYWHERE} lets other machines in without ")
    assert {name for name in ("COMMERCE_ALLOW_PLAINTEXT", "COMMERCE_ALLOW_ANONYMOUS") if name in line} == missing


async def test_what_a_setting_allows_is_warned_of(database_url: str) -> None:
    settings: dict[str, Any] = {"allow_plaintext": True, "allow_anonymous": True}
    async with serving(database_url, host=EVERYWHERE, **settings) as process:
        for event in (NO_TLS, NO_IDENTITIES):
            (line,) = process.logged(event)
            assert (line["level"], line["host"]) == ("warning", EVERYWHERE)
        async with connected(f"127.0.0.1:{await process.port()}") as channel:
            assert await is_answered(channel)


async def test_tls_with_client_certificates_needs_no_permission(database_url: str, tls: Tls) -> None:
    async with serving(database_url, host=EVERYWHERE, **tls.settings) as process:
        assert '"warning"' not in process.stderr()
        async with tls_channel(await process.port(), tls.server.pem, tls.clients.client()) as channel:
            assert await is_answered(channel)


POLICY = """
[roles]
reader = ["users.read"]
[identities]
"CN=billing" = ["reader"]
"""


async def test_the_certificate_of_a_client_names_the_caller(database_url: str, tls: Tls, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    replace(policy, POLICY.encode())
    settings: dict[str, Any] = {"client_certificates": "common_name", "policy_file": policy}
    settings["tls_port_without_client_certificates"] = 0
    async with serving(database_url, host=EVERYWHERE, **tls.settings, **settings) as process:
        assert '"warning"' not in process.stderr()
        for name, code in (("billing", StatusCode.OK), ("other", StatusCode.PERMISSION_DENIED)):
            certificate = tls.clients.ca.issue_cert("caller.example.com", common_name=name)
            async with tls_channel(await process.port(), tls.server.pem, certificate) as channel:
                assert await code_of_a_call(channel) == code
        await eventually(lambda: len(process.logged("call")) == 2)
        assert [(line["caller"], line["code"]) for line in process.logged("call")] == [
            ("CN=billing", "OK"),
            ("CN=other", "PERMISSION_DENIED"),
        ]
        second = process.logged("serving")[0]["port_without_client_certificates"]
        async with tls_channel(second, tls.server.pem) as channel:
            assert await code_of_a_call(channel) == StatusCode.UNAUTHENTICATED
            # Health is open.
            assert await is_answered(channel)


async def code_of_a_call(channel: grpc.aio.Channel) -> StatusCode:
    stub: Any = UserServiceStub(channel)
    return await stub.ListUsers(users_pb.ListUsersRequest(page_size=1), timeout=5).code()  # type: ignore[no-any-return]


async def test_a_port_without_client_certificates_lets_strangers_in(database_url: str, tls: Tls) -> None:
    settings = {"tls_port_without_client_certificates": 0, **tls.settings}
    ended = await run_command("serve", "--host", EVERYWHERE, "--port", "0", database_url=database_url, **settings)
    assert ended.status == 1
    assert "without identities" in ended.stderr


async def test_files_that_do_not_fit_are_one_line(database_url: str, tls: Tls) -> None:
    replace(tls.files.key, Authority().server().private_key_pem.bytes())
    ended = await run_command("serve", "--port", "0", database_url=database_url, **tls.settings)
    assert ended.status == 1
    (line,) = ended.stderr.splitlines()
    assert line == f"Error: the key in {tls.files.key} is not that of the first certificate in {tls.files.certificate}"


# Rotation under load


async def test_certificate_and_client_ca_change_under_load_and_old_ones_end_with_their_connections(
    database_url: str, tls: Tls
) -> None:
    async with serving(database_url, max_connection_age=1, **tls.settings) as process:
        port = await process.port()
        for _ in range(3):
            old_client, trusted = tls.clients.client(), tls.server.pem
            async with tls_channel(port, trusted, old_client) as old:
                load = asyncio.create_task(call_until_refused(old))
                await asyncio.sleep(0.3)
                # Overlapping, as operators do it: both CAs of clients are trusted for a while.
                tls.server, newer = Authority(), Authority()
                assert tls.files.client_ca
                replace(tls.files.client_ca, tls.clients.pem + newer.pem)
                tls.clients = newer
                write_certificate(tls.files, tls.server.server())
                await eventually(lambda: is_let_in(port, tls))
                replace(tls.files.client_ca, newer.pem)
                calls, error = await asyncio.wait_for(load, 20)
            assert calls > 10
            # Its connection reached the maximum age, and the server's new certificate is not trusted.
            assert error.code() == StatusCode.UNAVAILABLE
            await eventually(partial(is_refused, port, tls.server.pem, old_client))
        assert not process.logged("TLS certificate not reloaded")
        assert len(process.logged("TLS certificate reloaded")) >= 3


async def call_until_refused(channel: grpc.aio.Channel) -> tuple[int, grpc.aio.AioRpcError]:
    """Call without pause until a call fails; return how many did not, and the failure."""
    stub: Any = UserServiceStub(channel)
    calls = 0
    while True:
        try:
            await stub.ListUsers(users_pb.ListUsersRequest(page_size=1), timeout=5)
        except grpc.aio.AioRpcError as error:
            return calls, error
        calls += 1


async def is_let_in(port: int, tls: Tls) -> bool:
    async with tls_channel(port, tls.server.pem, tls.clients.client()) as channel:
        return await is_answered(channel)


async def is_refused(port: int, trusted: bytes, client: LeafCert) -> bool:
    async with tls_channel(port, trusted, client) as channel:
        return not await is_answered(channel)


# The Unix socket


async def drained(process: Process, channel: grpc.aio.Channel, target: str) -> None:
    """Send SIGTERM while a client is connected: it is served, no other connects, and the process ends after it."""
    assert await is_answered(channel)
    process.send(signal.SIGTERM)
    line = await process.until_logged("draining")
    assert line["connections"] == 1
    assert await is_answered(channel)
    if target:
        async with connected(target) as other:
            assert not await is_answered(other)
    await channel.close()
    ended = await process.end()
    assert ended.status == 0
    assert "Traceback" not in ended.stderr


async def test_a_server_on_a_unix_socket_drains_and_leaves_nothing_behind(
    database_url: str, socket_folder: Path
) -> None:
    path = socket_folder / "commerce.sock"
    async with running_command("serve", "--host", "", database_url=database_url, unix_socket=path) as process:
        line = await process.until_logged("serving")
        assert (line["port"], line["unix_socket"]) == (0, str(path))
        assert '"warning"' not in process.stderr()
        async with connected(f"unix:{path}") as channel:
            await drained(process, channel, f"unix:{path}")
    assert names_in(socket_folder) == []


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_server_on_both_drains_both(database_url: str, socket_folder: Path) -> None:
    path = socket_folder / "commerce.sock"
    async with serving(database_url, unix_socket=path) as process:
        port = await process.port()
        async with connected(f"127.0.0.1:{port}") as beside:
            assert await is_answered(beside)
            async with connected(f"unix:{path}") as channel:
                assert await is_answered(channel)
                process.send(signal.SIGTERM)
                assert (await process.until_logged("draining"))["connections"] == 2
                for target in (f"127.0.0.1:{port}", f"unix:{path}"):
                    async with connected(target) as other:
                        assert not await is_answered(other)
                assert await is_answered(channel)
            assert await is_answered(beside)
        assert (await process.end()).status == 0


async def test_a_server_with_tls_drains(database_url: str, tls: Tls) -> None:
    async with (
        serving(database_url, **tls.settings) as process,
        tls_channel(await process.port(), tls.server.pem, tls.clients.client()) as channel,
    ):
        await drained(process, channel, "")


async def test_a_unix_socket_in_use_is_one_line_and_one_of_a_killed_server_is_not(
    database_url: str, socket_folder: Path
) -> None:
    path = socket_folder / "commerce.sock"
    async with serving(database_url, unix_socket=path) as process:
        ended = await run_command("serve", "--port", "0", database_url=database_url, unix_socket=path)
        assert ended.status == 1
        assert ended.stderr.splitlines()[-1] == (
            f"Error: cannot listen on the Unix socket {path}: another server listens on it"
        )
        process.kill()
    async with serving(database_url, unix_socket=path), connected(f"unix:{path}") as channel:
        assert await is_answered(channel)


# commerce health


async def test_health_finds_the_server_of_its_settings(database_url: str, socket_folder: Path, tls: Tls) -> None:
    server_only = {name: value for name, value in tls.settings.items() if name != "tls_client_ca_file"}
    for settings in ({}, server_only, {"unix_socket": socket_folder / "commerce.sock", **tls.settings}):
        async with serving(database_url, **settings) as process:
            probe: dict[str, Any] = {"port": await process.port(), **settings}
            for service in ("", "readiness", "commerce.users.v1.UserService"):
                ran = await run_command("health", *filter(None, [service]), **probe)
                assert (ran.status, ran.stdout, ran.stderr) == (0, "SERVING\n", "")
            unknown = await run_command("health", "commerce.NoService", **probe)
            assert (unknown.status, unknown.stderr) == (1, "Error: there is no service commerce.NoService\n")
        ran = await run_command("health", **probe)
        assert ran.status == 1
        assert ran.stderr.startswith("Error: no answer from ")


async def test_health_uses_a_certificate_or_says_that_it_needs_one(database_url: str, tmp_path: Path, tls: Tls) -> None:
    client = tls.clients.client()
    certificate, key, ca = tmp_path / "client.crt", tmp_path / "client.key", tmp_path / "ca.crt"
    replace(certificate, chain(client))
    replace(key, client.private_key_pem.bytes())
    replace(ca, tls.server.pem)
    files = ("--certificate-file", str(certificate), "--key-file", str(key))
    async with serving(database_url, tls_port_without_client_certificates=0, **tls.settings) as process:
        port = await process.port()
        second = process.logged("serving")[0]["port_without_client_certificates"]
        probe = {"port": port, **tls.settings}
        ran = await run_command("health", **probe)
        what = "set COMMERCE_UNIX_SOCKET, or use --certificate-file and --key-file"
        assert (ran.status, ran.stderr) == (1, f"Error: the server asks for certificates: {what}\n")
        assert (await run_command("health", *files, **probe)).stdout == "SERVING\n"
        assert (await run_command("health", tls_port_without_client_certificates=second, **probe)).stdout == "SERVING\n"
        address = f"127.0.0.1:{port}"
        assert (await run_command("health", "--address", address, "--ca-file", str(ca), *files)).stdout == "SERVING\n"
        assert (await run_command("health", "--address", address, "--ca-file", str(ca))).status == 1
        # Other commands take the same options.
        exported = await run_command("export-orders", "--address", address, "--ca-file", str(ca), *files)
        assert (exported.status, exported.stderr) == (0, "")
        refused = await run_command("export-orders", "--address", address, *files)
        assert (refused.status, refused.stderr) == (1, "Error: --certificate-file and --key-file need --ca-file\n")
