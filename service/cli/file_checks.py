"""The checks of `commerce doctor` that need no database: who may call, and the files that say so."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

from service.config import ServerSettings
from service.db.operations.findings import Finding, Grade
from service.rpc.identity.issuers import Issuer, IssuerFileError, read_issuers
from service.rpc.identity.jwks import JwksError, KeySet
from service.rpc.identity.key_file import KeyFileError, read_keys
from service.rpc.identity.policy_parsing import PolicyError, read_policy, suspicions
from service.rpc.transport.exposure import exposures, http_exposures, metrics_exposure
from service.rpc.transport.tls import CertificateError, TlsFiles, validity

# What expires sooner than this is warned of.
_SOON = timedelta(days=14)


async def file_findings(settings: ServerSettings) -> list[Finding]:
    """Return a finding for each file that the settings name, and for what they lack."""
    return [
        *_exposure(settings),
        *_tls(settings),
        *_policy(settings),
        *_api_keys(settings),
        *[finding async for finding in _issuers(settings)],
    ]


def _exposure(settings: ServerSettings) -> Iterator[Finding]:
    problems, allowed = exposures(settings, has_identities=settings.has_identities)
    for problem in problems:
        yield Finding(Grade.FAIL, "exposure", f"COMMERCE_HOST={settings.host} lets other machines in {problem}")
    http_problems, http_allowed = http_exposures(settings)
    for problem in http_problems:
        yield Finding(Grade.FAIL, "exposure", problem)
    problems += http_problems
    allowed += [f"HTTP: {words}" for words in http_allowed]
    metrics_problem, metrics_allowed = metrics_exposure(settings)
    if metrics_problem:
        problems.append(metrics_problem)
        yield Finding(Grade.FAIL, "exposure", metrics_problem)
    if metrics_allowed:
        allowed.append(metrics_allowed)
    for words in allowed:
        yield Finding(Grade.WARN, "exposure", words)
    if not problems and not allowed:
        yield Finding(Grade.OK, "exposure", "no other machine is let in without TLS and an identity")


def _tls(settings: ServerSettings) -> Iterator[Finding]:
    if not (settings.tls_certificate_file and settings.tls_key_file):
        return
    files = TlsFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        begins, expires = validity(files)
    except CertificateError as error:
        yield Finding(Grade.FAIL, "TLS", str(error))
        return
    now = datetime.now(UTC)
    if begins > now:
        words = f"the certificate is valid from {begins:%F %R} UTC on: use another one, or correct the clock"
        yield Finding(Grade.FAIL, "TLS", words)
    elif expires <= now:
        words = f"the certificate expired on {expires:%F %R} UTC, so clients refuse it: replace the files"
        yield Finding(Grade.FAIL, "TLS", words)
    elif expires <= now + _SOON:
        yield Finding(Grade.WARN, "TLS", f"the certificate expires on {expires:%F %R} UTC: replace the files soon")
    else:
        yield Finding(Grade.OK, "TLS", f"the certificate fits its key, and is valid until {expires:%F}")


def _policy(settings: ServerSettings) -> Iterator[Finding]:
    path = settings.policy_file
    if path is None:
        if settings.has_identities:
            words = "no policy says what the callers may do: set COMMERCE_POLICY_FILE"
            yield Finding(Grade.FAIL, "policy", words)
        else:
            yield Finding(Grade.OK, "policy", "there is none: every caller is anonymous, and may do everything")
        return
    if not settings.has_identities:
        words = (
            "COMMERCE_POLICY_FILE is set, but callers have no identities: set COMMERCE_API_KEYS_FILE,"
            " COMMERCE_JWT_ISSUERS_FILE or COMMERCE_CLIENT_CERTIFICATES"
        )
        yield Finding(Grade.FAIL, "policy", words)
        return
    try:
        policy = read_policy(path)
    except PolicyError as error:
        yield from (Finding(Grade.FAIL, "policy", problem) for problem in error.problems)
        return
    yield from (Finding(Grade.WARN, "policy", f"{path}: {suspicion}") for suspicion in suspicions(policy))
    words = f"{path} has {len(policy.roles)} roles for {len(policy.identities)} names of identities"
    yield Finding(Grade.OK, "policy", words)


def _api_keys(settings: ServerSettings) -> Iterator[Finding]:
    path = settings.api_keys_file
    if path is None:
        return
    try:
        keys = read_keys(path)
    except KeyFileError as error:
        yield Finding(Grade.FAIL, "API keys", f"COMMERCE_API_KEYS_FILE: {error}")
        return
    now = datetime.now(UTC)
    valid = [key for key in keys if not key.has_expired(now)]
    for key in valid:
        # Unless another one of this name lasts longer.
        others = (other.expire_time for other in valid if other.name == key.name and other is not key)
        if key.has_expired(now + _SOON) and all(time and time <= now + _SOON for time in others):
            words = f"the last key of {key.name} expires soon: run `commerce keys create {key.name}`, and distribute it"
            yield Finding(Grade.WARN, "API keys", words)
    if valid:
        yield Finding(Grade.OK, "API keys", f"{path} has {len(valid)} valid keys")
    else:
        yield Finding(Grade.WARN, "API keys", f"{path} has no valid key: run `commerce keys create NAME`")


async def _issuers(settings: ServerSettings) -> AsyncIterator[Finding]:
    path = settings.jwt_issuers_file
    if path is None:
        return
    try:
        issuers = read_issuers(path)
    except IssuerFileError as error:
        yield Finding(Grade.FAIL, "tokens", f"COMMERCE_JWT_ISSUERS_FILE: {error}")
        return
    for issuer in issuers:
        yield await _keys_of(issuer)


async def _keys_of(issuer: Issuer) -> Finding:
    try:
        await KeySet(issuer, on_removed=lambda: None).load()
    except JwksError as error:
        # A server starts without keys from a URL, and loads them later.
        grade = Grade.WARN if isinstance(issuer.jwks, str) else Grade.FAIL
        return Finding(grade, "tokens", f"the keys of issuer {issuer.name} cannot be loaded: {error}")
    return Finding(Grade.OK, "tokens", f"the keys of issuer {issuer.name} can be loaded")
