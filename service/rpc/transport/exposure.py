"""Whom a server would let in: what a machine's network reaches needs TLS and identities, or a setting that says no."""

from ipaddress import ip_address

import structlog

from service.config import ListenSettings

log = structlog.get_logger()


class Exposed(Exception):
    """A server would be reached from other machines without protection. The message is one line for an operator."""


def has_identities(settings: ListenSettings) -> bool:
    """Return whether the server knows who calls: a way to prove an identity is configured."""
    return settings.tls_client_ca_file is not None


def require_protection(settings: ListenSettings) -> None:
    """Check that other machines reach the server only with TLS and identities, or that a setting allows it.

    Raises:
        Exposed: neither is the case.
    """
    host = settings.host
    if not host or _is_loopback(host):
        return
    problems = []
    if settings.tls_certificate_file is None:
        if settings.allow_plaintext:
            log.warning("serving other machines without TLS: the network between can read and change calls", host=host)
        else:
            problems.append(
                "without TLS: set COMMERCE_TLS_CERTIFICATE_FILE and COMMERCE_TLS_KEY_FILE, or "
                "COMMERCE_ALLOW_PLAINTEXT=true if the network between is protected"
            )
    if not has_identities(settings):
        if settings.allow_anonymous:
            log.warning("serving other machines without identities: whoever reaches the port may do all", host=host)
        else:
            problems.append(
                "without identities: set COMMERCE_TLS_CLIENT_CA_FILE or another kind of identity, or "
                "COMMERCE_ALLOW_ANONYMOUS=true if only trusted programs reach the port"
            )
    if problems:
        raise Exposed(f"COMMERCE_HOST={host} lets other machines in {', and '.join(problems)}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
