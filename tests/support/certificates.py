"""Certificates for servers and clients, and channels that use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from trustme import CA, LeafCert

from service.rpc.transport.tls import TlsFiles

# Each channel has its own connection, so that it makes its own handshake.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Authority:
    """A certificate authority."""

    ca: CA = field(default_factory=CA)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.ca.cert_pem.bytes()

    def server(self) -> LeafCert:
        """Return a certificate for a server on this machine."""
        return self.ca.issue_cert("127.0.0.1", "localhost")

    def client(self, name: str = "caller.example.com") -> LeafCert:
        """Return a certificate for a client."""
        return self.ca.issue_cert(name)


def chain(certificate: LeafCert) -> bytes:
    """Return a certificate with the rest of its chain."""
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def write_certificate(files: TlsFiles, certificate: LeafCert) -> None:
    """Write the certificate and the key of a server."""
    replace(files.certificate, chain(certificate))
    replace(files.key, certificate.private_key_pem.bytes())


def replace(path: Path, contents: bytes) -> None:
    """Replace a file as a whole."""
    part = path.with_suffix(".part")
    part.write_bytes(contents)
    part.replace(path)


def write_files(folder: Path, certificate: LeafCert, client_ca: bytes | None = None) -> TlsFiles:
    """Write the files of a server into a folder."""
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "client-ca.crt" if client_ca else None)
    write_certificate(files, certificate)
    if files.client_ca and client_ca:
        replace(files.client_ca, client_ca)
    return files


@asynccontextmanager
async def tls_channel(port: int, trusted: bytes, client: LeafCert | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel with a connection of its own to a server on this machine.

    Args:
        port: the server's port.
        trusted: the certificate of the CA that must have signed the server's.
        client: the certificate of the client, if it has one.
    """
    credentials = grpc.ssl_channel_credentials(
        trusted, client.private_key_pem.bytes() if client else None, chain(client) if client else None
    )
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=_OWN_CONNECTION) as channel:
        yield channel
