"""TLS in every accept mode: who is let in, and what happens when the files change."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from grpc import StatusCode
from trustme import KeyType, LeafCert

from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.transport.accepting import AcceptingServer, AcceptMode
from service.rpc.transport.tls import CertificateError, ServerCertificates, TlsFiles
from tests.support.certificates import Authority, chain, replace, tls_channel, write_certificate, write_files
from tests.support.echo import SERVICE, Echo, call
from tests.support.logs import Log
from tests.support.waiting import eventually

Way = tuple[AcceptMode, int]
WAYS: list[Way] = [("calls", 16), ("listeners", 1), ("listeners", 4)]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
IMPATIENT = 5


class Served:
    """A server of the echo service with TLS."""

    def __init__(self, certificates: ServerCertificates, echo: Echo, port: int) -> None:
        self.certificates = certificates
        self.port = port
        # What gRPC told the last call about its connection; it must not be asked after the call.
        self.security: Any = None
        self._echo = echo
        echo.act = self._look

    async def _look(self) -> None:
        assert self._echo.context
        self.security = self._echo.context.auth_context()

    async def answers(self, trusted: bytes, client: LeafCert | None = None) -> bool:
        """Return whether a call on a new connection is answered."""
        async with tls_channel(self.port, trusted, client) as channel:
            try:
                return await call(channel, "UnaryUnary", "one", seconds=IMPATIENT) == ["one"]
            except grpc.aio.AioRpcError as error:
                assert error.code() == StatusCode.UNAVAILABLE  # noqa: PT017 - another error is another failure
                return False


@asynccontextmanager
async def serving(way: Way, files: TlsFiles) -> AsyncIterator[Served]:
    echo, methods = Echo(), InterceptedMethods([])
    methods.add_registered_method_handlers(SERVICE, echo.handlers())
    accept_mode, pending_accepts = way
    server = AcceptingServer(
        methods, [], accept_mode=accept_mode, pending_accepts=pending_accepts, max_calls=100, reuse_port=False
    )
    certificates = ServerCertificates(files)
    port = server.listen("127.0.0.1", 0, certificates, client_certificates=files.client_ca is not None)
    await server.start()
    try:
        yield Served(certificates, echo, port)
    finally:
        await server.stop(0)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def clients_authority() -> Authority:
    return Authority()


@every_way
async def test_calls_are_encrypted(way: Way, authority: Authority, tmp_path: Path) -> None:
    async with serving(way, write_files(tmp_path, authority.server())) as served:
        assert await served.answers(authority.pem)
        assert served.security["transport_security_type"] == [b"ssl"]
        # Nobody is asked for a certificate.
        assert "x509_subject" not in served.security


@every_way
async def test_a_client_that_does_not_trust_the_server_or_speaks_plaintext_is_not_served(
    way: Way, authority: Authority, tmp_path: Path
) -> None:
    async with serving(way, write_files(tmp_path, authority.server())) as served:
        assert not await served.answers(Authority().pem)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(channel, "UnaryUnary", "one", seconds=IMPATIENT)
        assert raised.value.code() == StatusCode.UNAVAILABLE
        assert not served.security


@every_way
async def test_clients_need_a_certificate_of_the_client_ca(
    way: Way, authority: Authority, clients_authority: Authority, tmp_path: Path
) -> None:
    files = write_files(tmp_path, authority.server(), clients_authority.pem)
    async with serving(way, files) as served:
        assert not await served.answers(authority.pem)
        assert not await served.answers(authority.pem, Authority().client())
        # Nor does the CA of the server's own certificate count.
        assert not await served.answers(authority.pem, authority.client())
        assert not served.security
        assert await served.answers(authority.pem, clients_authority.client("orders.example.com"))
        assert served.security["peer_dns"] == [b"orders.example.com"]
        assert served.security["x509_subject"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_versions_of_tls_are_refused(version: ssl.TLSVersion, authority: Authority, tmp_path: Path) -> None:
    async with serving(("calls", 16), write_files(tmp_path, authority.server())) as served:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(negotiated_version, served.port, authority, version)
        for newer, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            assert await asyncio.to_thread(negotiated_version, served.port, authority, newer) == name


def negotiated_version(port: int, authority: Authority, version: ssl.TLSVersion) -> str | None:
    """Connect with exactly this version of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.ca.configure_trust(context)
    # OpenSSL's default forbids the old versions by itself.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped,
    ):
        return wrapped.version()


# New files


@every_way
async def test_new_connections_use_a_new_certificate_and_open_ones_go_on(
    way: Way, authority: Authority, tmp_path: Path
) -> None:
    files = write_files(tmp_path, authority.server())
    async with serving(way, files) as served, tls_channel(served.port, authority.pem) as live:
        assert await call(live, "UnaryUnary", "one") == ["one"]
        loaded_at = served.certificates.loaded_at
        for _ in range(3):
            other = Authority()
            write_certificate(files, other.server())
            await served.certificates.refresh()
            assert served.certificates.loaded_at > loaded_at
            # With four listeners, several of these connections reach each of them.
            for _ in range(8 if way[1] == 4 else 2):
                assert await served.answers(other.pem)
                assert not await served.answers(authority.pem)
            assert await call(live, "UnaryUnary", "two") == ["two"]


@every_way
async def test_new_connections_need_a_certificate_of_the_new_client_ca(
    way: Way, authority: Authority, clients_authority: Authority, tmp_path: Path
) -> None:
    files = write_files(tmp_path, authority.server(), clients_authority.pem)
    assert files.client_ca
    newer = Authority()
    old, new = clients_authority.client(), newer.client()
    async with serving(way, files) as served, tls_channel(served.port, authority.pem, old) as live:
        assert await call(live, "UnaryUnary", "one") == ["one"]
        assert not await served.answers(authority.pem, new)
        replace(files.client_ca, clients_authority.pem + newer.pem)
        await served.certificates.refresh()
        assert await served.answers(authority.pem, old)
        assert await served.answers(authority.pem, new)
        replace(files.client_ca, newer.pem)
        await served.certificates.refresh()
        for _ in range(4):
            assert not await served.answers(authority.pem, old)
            assert await served.answers(authority.pem, new)
        assert await call(live, "UnaryUnary", "two") == ["two"]


async def test_changes_are_found_without_asking(authority: Authority, tmp_path: Path) -> None:
    files = write_files(tmp_path, authority.server())
    async with serving(("calls", 16), files) as served:
        watching = asyncio.create_task(served.certificates.watch(0.01))
        other = Authority()
        write_certificate(files, other.server())
        await eventually(lambda: served.answers(other.pem))
        # A failure does not end the watching.
        files.key.unlink()
        await eventually(lambda: served.certificates.failure)
        write_certificate(files, authority.server())
        await eventually(lambda: served.answers(authority.pem))
        watching.cancel()


async def test_the_last_good_certificate_stays_while_the_files_cannot_be_used(
    authority: Authority, tmp_path: Path, log: Log
) -> None:
    files = write_files(tmp_path, authority.server())
    problem = f"the key in {files.key} is not that of the first certificate in {files.certificate}"
    async with serving(("calls", 16), files) as served:
        certificates = served.certificates
        assert (certificates.failure, certificates.failed_at) == (None, None)
        loaded_at, other = certificates.loaded_at, Authority()
        # As if the key were still being replaced.
        new = other.server()
        replace(files.certificate, chain(new))
        await certificates.refresh()
        assert certificates.failure == problem
        assert certificates.failed_at
        assert certificates.loaded_at == loaded_at
        assert await served.answers(authority.pem)
        # It may have been a moment between two files.
        assert not log.lines(event="TLS certificate not reloaded")
        for _ in range(3):
            await certificates.refresh()
        # Once, not each time.
        line = await log.line(event="TLS certificate not reloaded")
        assert (line["level"], line["problem"]) == ("error", problem)
        replace(files.key, new.private_key_pem.bytes())
        await certificates.refresh()
        assert certificates.failure is None
        # For a metric, when it failed stays known.
        assert certificates.failed_at
        assert certificates.loaded_at > loaded_at
        assert await served.answers(other.pem)


def test_another_failure_is_logged_too(authority: Authority, tmp_path: Path, log: Log) -> None:
    files = write_files(tmp_path, authority.server())
    certificates = ServerCertificates(files)
    for contents in (b"garbage", None):
        if contents is None:
            files.certificate.unlink()
        else:
            replace(files.certificate, contents)
        for _ in range(3):
            asyncio.run(certificates.refresh())
    problems = [line["problem"] for line in log.lines(event="TLS certificate not reloaded")]
    assert [problem.removeprefix(str(files.certificate)) for problem in problems] == [
        " contains no certificates in PEM format, or a broken one",
        " cannot be read: No such file or directory",
    ]


# Validity


def lasting(authority: Authority, begin: timedelta, end: timedelta) -> LeafCert:
    """Return a server's certificate that is valid from and until these times from now."""
    now = datetime.now(UTC)
    return authority.ca.issue_cert("127.0.0.1", not_before=now + begin, not_after=now + end)


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("end", "level", "event"),
    [
        (15 * DAY, None, None),
        (13.5 * DAY, "warning", "the TLS certificate expires soon"),
        (-DAY, "error", "the TLS certificate has expired: clients refuse it"),
    ],
)
async def test_the_end_of_a_certificate_is_announced_once_a_day(
    authority: Authority, tmp_path: Path, log: Log, end: timedelta, level: str | None, event: str | None
) -> None:
    certificate = lasting(authority, -2 * DAY, end)
    certificates = ServerCertificates(write_files(tmp_path, certificate))
    assert abs(certificates.expires - datetime.now(UTC) - end) < timedelta(minutes=1)
    loaded = await log.line(event="TLS certificate loaded")
    assert loaded["expires"] == certificates.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    for _ in range(3):
        await certificates.refresh()
    logged = [(line["level"], line["event"]) for line in log.lines() if line["level"] in {"warning", "error"}]
    assert logged == ([(level, event)] if level else [])


async def test_a_certificate_that_is_not_valid_does_not_replace_one_that_is(
    authority: Authority, tmp_path: Path
) -> None:
    files = write_files(tmp_path, authority.server())
    certificates = ServerCertificates(files)
    expires = certificates.expires
    write_certificate(files, lasting(authority, -2 * DAY, -DAY))
    await certificates.refresh()
    assert certificates.failure == f"the certificate in {files.certificate} has expired"
    write_certificate(files, lasting(authority, timedelta(seconds=1), DAY))
    await certificates.refresh()
    assert certificates.failure == f"the certificate in {files.certificate} is not valid yet"
    assert certificates.expires == expires

    async def is_loaded() -> bool:
        await certificates.refresh()
        return certificates.expires != expires

    # As soon as it is valid.
    await eventually(is_loaded)
    assert certificates.failure is None


async def test_an_expired_certificate_is_replaced_by_any(authority: Authority, tmp_path: Path) -> None:
    files = write_files(tmp_path, lasting(authority, -3 * DAY, -2 * DAY))
    certificates = ServerCertificates(files)
    for replacement in (lasting(authority, -3 * DAY, -DAY), lasting(authority, -DAY, DAY)):
        expires = certificates.expires
        write_certificate(files, replacement)
        await certificates.refresh()
        assert certificates.failure is None
        assert certificates.expires > expires


def test_the_first_of_a_chain_to_expire_counts(tmp_path: Path) -> None:
    root = Authority()
    intermediate = Authority(root.ca.create_child_ca())
    # trustme's intermediate certificates never expire, so its certificate is put behind a leaf that does, and beside.
    leaf = lasting(intermediate, -DAY, DAY)
    soon = lasting(root, -DAY, DAY / 2)
    files = write_files(tmp_path, leaf)
    assert ServerCertificates(files).expires == files_end(files)
    replace(files.certificate, chain(leaf) + chain(soon))
    assert ServerCertificates(files).expires < files_end(files)


def files_end(files: TlsFiles) -> datetime:
    """Return when the first certificate in the file expires."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - for this only

    return load_pem_x509_certificates(files.certificate.read_bytes())[0].not_valid_after_utc


# Files that cannot be used


def key_pem(key: CertificateIssuerPrivateKeyTypes, password: bytes | None = None) -> bytes:
    protection: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def signed(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """Return a certificate of this key that signs itself."""
    from cryptography import x509  # noqa: PLC0415 - for this only
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 30 * DAY)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


KEYS: dict[str, Callable[[], CertificateIssuerPrivateKeyTypes]] = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - to be refused
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_kind_of_key_that_clients_refuse_is_not_loaded(tmp_path: Path, kind: str) -> None:
    key = KEYS[kind]()
    files = TlsFiles(tmp_path / "crt", tmp_path / "key")
    files.certificate.write_bytes(signed(key))
    files.key.write_bytes(key_pem(key))
    with pytest.raises(CertificateError, match="gRPC clients refuse the kind of key"):
        ServerCertificates(files)


@pytest.mark.parametrize("kind", [KeyType.RSA, KeyType.ECDSA])
async def test_other_kinds_of_keys_are_served(authority: Authority, tmp_path: Path, kind: KeyType) -> None:
    certificate = authority.ca.issue_cert("127.0.0.1", key_type=kind)
    async with serving(("calls", 16), write_files(tmp_path, certificate)) as served:
        assert await served.answers(authority.pem)


async def test_a_p384_key_is_served(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    files = TlsFiles(tmp_path / "crt", tmp_path / "key")
    files.certificate.write_bytes(signed(key))
    files.key.write_bytes(key_pem(key))
    async with serving(("calls", 16), files) as served:
        target = f"127.0.0.1:{served.port}"
        credentials = grpc.ssl_channel_credentials(files.certificate.read_bytes())
        options = [("grpc.ssl_target_name_override", "server")]
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            assert await call(channel, "UnaryUnary", "one", seconds=IMPATIENT) == ["one"]


def unusable_files(folder: Path, authority: Authority) -> Iterator[tuple[str, TlsFiles, str]]:
    """Yield files that cannot be used, and what is wrong with them."""
    good = write_files(folder, authority.server(), authority.pem)
    assert good.client_ca
    garbage, encrypted, empty = folder / "garbage", folder / "encrypted", folder / "empty"
    garbage.write_bytes(b"garbage")
    empty.write_bytes(b"")
    encrypted.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    truncated = folder / "truncated"
    truncated.write_bytes(good.certificate.read_bytes()[:-100])
    missing = folder / "missing"
    yield "no certificate", TlsFiles(missing, good.key), f"{missing} cannot be read: No such file or directory"
    yield "no key", TlsFiles(good.certificate, missing), f"{missing} cannot be read"
    yield "no CA", TlsFiles(good.certificate, good.key, missing), f"{missing} cannot be read"
    yield "a folder", TlsFiles(folder, good.key), f"{folder} cannot be read: Is a directory"
    yield "garbage", TlsFiles(garbage, good.key), f"{garbage} contains no certificates"
    yield "truncated", TlsFiles(truncated, good.key), f"{truncated} contains no certificates in PEM format, or a broken"
    yield "swapped", TlsFiles(good.key, good.certificate), f"{good.key} contains no certificates"
    yield "a garbled key", TlsFiles(good.certificate, garbage), f"{garbage} contains no private key"
    yield "encrypted", TlsFiles(good.certificate, encrypted), f"the key in {encrypted} is encrypted"
    yield "an empty CA", TlsFiles(good.certificate, good.key, empty), f"{empty} contains no certificates"
    yield "a garbled CA", TlsFiles(good.certificate, good.key, garbage), f"{garbage} contains no certificates"


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    for name, files, problem in unusable_files(tmp_path, authority):
        with pytest.raises(CertificateError) as raised:
            ServerCertificates(files)
        assert str(raised.value).startswith(problem), name
        assert "secret" not in str(raised.value)
