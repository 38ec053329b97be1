"""TLS for HTTP, with the certificate of the gRPC port, also after it was replaced."""

import ssl
from datetime import datetime
from pathlib import Path
from typing import Protocol

import structlog

log = structlog.get_logger()


class Certificates(Protocol):
    """The certificates that the server has checked and loaded.

    Attributes:
        loaded_at: when they were loaded; it changes with them.
    """

    loaded_at: datetime


def server_context(certificate: Path, key: Path, certificates: Certificates) -> ssl.SSLContext:
    """Return a context for TLS, which uses the files again whenever the server has loaded them again.

    No client certificate is asked for.

    Args:
        certificate: the certificate with its chain.
        key: its private key.
        certificates: says when the files were checked and loaded.
    """
    context, loaded_at = _context(certificate, key), certificates.loaded_at
    current = context

    def use_current(connection: ssl.SSLObject, _name: str | None, _asked: ssl.SSLContext) -> None:
        # Called for each connection. A context cannot be loaded again: if that failed, it would have half of it.
        nonlocal current, loaded_at
        if loaded_at != certificates.loaded_at:
            loaded_at = certificates.loaded_at
            try:
                current = _context(certificate, key)
            except (OSError, ssl.SSLError):
                # They have changed since. Then they are loaded again soon, and until then the previous ones are used.
                log.warning("TLS certificate not reloaded for HTTP")
        connection.context = current

    context.sni_callback = use_current
    return context


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context
