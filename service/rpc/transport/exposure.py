"""Whom a server would let in: what a machine's network reaches needs TLS and identities, or a setting that says no."""

from ipaddress import ip_address

import structlog

from service.config import HttpServerSettings, ListenSettings, MetricsSettings

log = structlog.get_logger()


class Exposed(Exception):
    """A server would be reached from other machines without protection. The message is one line for an operator."""


def require_protection(settings: ListenSettings, *, has_identities: bool) -> None:
    """Check that other machines reach the server only with TLS and identities, or that a setting allows it.

    Args:
        settings: the addresses, and what is allowed.
        has_identities: whether callers must say who they are.

    Raises:
        Exposed: other machines would reach it without.
    """
    problems, allowed = exposures(settings, has_identities=has_identities)
    for warning in allowed:
        log.warning(warning, host=settings.host)
    if problems:
        raise Exposed(f"COMMERCE_HOST={settings.host} lets other machines in {', and '.join(problems)}")


def exposures(settings: ListenSettings, *, has_identities: bool) -> tuple[list[str], list[str]]:
    """Return without what other machines would be let in, and what a setting allows nevertheless."""
    # Who has a certificate of the client CA is let in by name, even if the name is not used.
    only_known = settings.tls_client_ca_file and settings.tls_port_without_client_certificates is None
    return _exposures(settings, settings.host, only_known=has_identities or bool(only_known))


def require_http_protection(settings: HttpServerSettings) -> None:
    """Check the same of the HTTP port, for which client certificates mean nothing.

    Raises:
        Exposed: other machines would reach it without TLS or identities, or callers without what the settings want.
    """
    problems, allowed = http_exposures(settings)
    for warning in allowed:
        log.warning(warning, http_host=settings.http_host)
    if problems:
        raise Exposed(problems[0])


def http_exposures(settings: HttpServerSettings) -> tuple[list[str], list[str]]:
    """Return what is wrong with the HTTP port, in sentences, and what a setting allows nevertheless."""
    if settings.http_port is None:
        return [], []
    known = settings.has_identities_in_metadata
    found, allowed = _exposures(settings, settings.http_host, only_known=known)
    problems = (
        [f"COMMERCE_HTTP_HOST={settings.http_host} lets other machines in {', and '.join(found)}"] if found else []
    )
    if settings.tls_client_ca_file and not known:
        problems.append(
            "COMMERCE_HTTP_PORT takes no client certificates, which COMMERCE_TLS_CLIENT_CA_FILE wants of callers: set"
            " COMMERCE_JWT_ISSUERS_FILE or COMMERCE_API_KEYS_FILE, or unset it"
        )
    if "*" in settings.cors_origins and not known:
        problems.append(
            "COMMERCE_HTTP_CORS_ORIGINS=* lets every web page call without an identity: name the origins, or set"
            " COMMERCE_JWT_ISSUERS_FILE or COMMERCE_API_KEYS_FILE"
        )
    return problems, allowed


def require_metrics_protection(settings: MetricsSettings) -> None:
    """Check that other machines reach the metrics only if a setting allows it; raises Exposed."""
    problem, allowed = metrics_exposure(settings)
    if allowed:
        log.warning(allowed, metrics_host=settings.metrics_host)
    if problem:
        raise Exposed(problem)


def metrics_exposure(settings: MetricsSettings) -> tuple[str, str]:
    """Return what is wrong with the port for metrics, or what a setting allows nevertheless; else empty texts."""
    if settings.metrics_port is None or _is_loopback(settings.metrics_host):
        return "", ""
    if settings.metrics_open:
        return "", "serving metrics to other machines: any program that reaches the port may read them"
    problem = (
        f"COMMERCE_METRICS_HOST={settings.metrics_host} lets other machines read the metrics, without TLS and"
        " identities: set COMMERCE_METRICS_OPEN=true if only trusted programs reach the port"
    )
    return problem, ""


def _exposures(settings: ListenSettings, host: str, *, only_known: bool) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    allowed: list[str] = []
    if not host or _is_loopback(host):
        return problems, allowed
    if settings.tls_certificate_file is None:
        if settings.allow_plaintext:
            allowed.append("serving other machines without TLS: the network between can read and change calls")
        else:
            problems.append(
                "without TLS: set COMMERCE_TLS_CERTIFICATE_FILE and COMMERCE_TLS_KEY_FILE, or "
                "COMMERCE_ALLOW_PLAINTEXT=true if the network between is protected"
            )
    if not only_known:
        if settings.allow_anonymous:
            allowed.append(
                "serving other machines without identities: any program that reaches the port may do everything"
            )
        else:
            problems.append(
                "without identities: set COMMERCE_JWT_ISSUERS_FILE, COMMERCE_API_KEYS_FILE or "
                "COMMERCE_TLS_CLIENT_CA_FILE, or COMMERCE_ALLOW_ANONYMOUS=true if only trusted programs reach the port"
            )
    return problems, allowed


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
