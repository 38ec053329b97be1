"""Channels from the commands to a running service."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import grpc


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a command connects with TLS.

    Attributes:
        ca_file: certificates of the CAs that may have signed the service's, PEM; None means plaintext.
        certificate_file: the certificate of the command, PEM, if the service asks for one.
        key_file: the private key of that certificate, PEM.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


def open_channel(address: str, tls: TlsOptions, options: Sequence[tuple[str, int | str]] = ()) -> grpc.Channel:
    """Open a channel to a service at `HOST:PORT` or `unix:PATH`; raises ClickException for files that do not fit."""
    if tls.ca_file is None:
        if tls.certificate_file or tls.key_file:
            raise click.ClickException("--certificate-file and --key-file need --ca-file")
        return grpc.insecure_channel(address, options=options)
    if (tls.certificate_file is None) != (tls.key_file is None):
        raise click.ClickException("--certificate-file and --key-file need each other")
    ca, certificate, key = (
        _contents(path) if path else None for path in (tls.ca_file, tls.certificate_file, tls.key_file)
    )
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), options=options)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
