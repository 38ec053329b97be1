"""TLS for the server: the certificate, its key and the CA of client certificates, reloaded when their files change.

gRPC asks for new credentials whenever a client connects, in a thread of its own. That answer comes from memory: a task
reads the files every few seconds, in another thread, and checks what it has read. New connections use what was loaded
last; connections that are open keep what they began with, until they reach the maximum age.

gRPC refuses TLS below 1.2 by itself.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

# From this time before the certificate expires, a warning is logged once in a period.
_WARNING_TIME = timedelta(days=14)
_WARNING_PERIOD = timedelta(days=1)
# A failure that stays the same is logged once in a period.
_FAILURE_PERIOD = timedelta(hours=1)
_MIN_RSA_BITS = 2048
# gRPC's clients offer no other curves for certificates.
_CURVES = (ec.SECP256R1, ec.SECP384R1)

log = structlog.get_logger()


class CertificateError(Exception):
    """A file is missing, or the files do not fit together. The message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files, all in PEM format.

    Attributes:
        certificate: the server's certificate, followed by the intermediate certificates of its chain.
        key: the private key of the certificate, not encrypted.
        client_ca: certificates of the CAs that sign clients' certificates; None if clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the files contain."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Contents that can be used."""

    contents: _Contents
    valid_from: datetime
    expires: datetime

    def is_valid(self, now: datetime) -> bool:
        """Return whether clients accept the certificate at this time."""
        return self.valid_from <= now < self.expires

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return a new configuration: each can be given to gRPC only once."""
        contents = self.contents
        return grpc.ssl_server_certificate_configuration([(contents.key, contents.certificate)], contents.client_ca)


class ServerCertificates:
    """The certificates that a server uses, and what became of the last attempts to reload them.

    Args:
        files: the files to load.

    Attributes:
        loaded_at: when the certificates in use were loaded.
        failed_at: when the files could not be used for the last time; None if they always could.
        failure: why the files cannot be used now, in one line; None while they can.

    Raises:
        CertificateError: the files cannot be used. An expired certificate can: clients refuse it, and the server says
            so in the log and uses the next one as soon as there is one.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        now = datetime.now(UTC)
        self._loaded = _check(files, _read(files))
        self.loaded_at = now
        self.failed_at: datetime | None = None
        self.failure: str | None = None
        # The last contents that could not be used, which need not be checked again, and why.
        self._refused: tuple[_Contents | None, str] | None = None
        self._failure_logged: tuple[str, datetime] | None = None
        self._expiry_logged: datetime | None = None
        log.info("TLS certificate loaded", expires=self.expires, client_certificates=files.client_ca is not None)
        self._warn_of_expiry(now)

    @property
    def expires(self) -> datetime:
        """When the certificate expires, or an intermediate certificate of its chain if that is earlier."""
        return self._loaded.expires

    def credentials(self, *, client_certificates: bool) -> grpc.ServerCredentials:
        """Return credentials for one port of one server.

        Args:
            client_certificates: whether each client must have a certificate of the client CA. Otherwise none is asked
                for: gRPC for Python cannot ask for a certificate that may be missing.
        """
        given = self._loaded

        def changed() -> grpc.ServerCertificateConfiguration | None:
            # Called for every connection, in a thread of gRPC.
            nonlocal given
            current = self._loaded
            if current is given:
                return None
            given = current
            return current.configuration()

        return grpc.dynamic_ssl_server_credentials(
            given.configuration(),
            changed,  # type: ignore[arg-type] # the stubs do not know that None means unchanged
            require_client_authentication=client_certificates,
        )

    async def watch(self, seconds: float) -> None:
        """Reload the files after each change, until cancelled; looks for changes with this many seconds between."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except Exception:
                # Without this, one unknown error would end the watching, and the certificate would expire some day.
                log.exception("the TLS files could not be checked")

    async def refresh(self) -> None:
        """Load the files if they have changed and can be used; otherwise keep what was loaded last."""
        now = datetime.now(UTC)
        contents, problem = await asyncio.to_thread(self._look, now)
        if problem is None:
            self.failure = self._refused = self._failure_logged = None
        else:
            self._fail(contents, problem, now)
        self._warn_of_expiry(now)

    def _look(self, now: datetime) -> tuple[_Contents | None, str | None]:
        """Return what the files contain and what is wrong with it; use it if nothing is wrong. Runs in a thread."""
        contents = None
        try:
            contents = _read(self._files)
            if contents == self._loaded.contents:
                return contents, None
            if self._refused and contents == self._refused[0]:
                return self._refused
            loaded = _check(self._files, contents)
        except CertificateError as error:
            return contents, str(error)
        if self._loaded.is_valid(now) and not loaded.is_valid(now):
            # Not remembered, because time can change it.
            what = "has expired" if loaded.expires <= now else "is not valid yet"
            return None, f"the certificate in {self._files.certificate} {what}"
        self._loaded = loaded
        self.loaded_at = now
        log.info("TLS certificate reloaded", expires=loaded.expires)
        return contents, None

    def _fail(self, contents: _Contents | None, problem: str, now: datetime) -> None:
        # Files are replaced one after the other, so the first failure is not logged.
        is_new = self.failure != problem
        self._refused = contents, problem
        self.failure, self.failed_at = problem, now
        logged = self._failure_logged
        if is_new or (logged and logged[0] == problem and now - logged[1] < _FAILURE_PERIOD):
            return
        self._failure_logged = problem, now
        log.error("TLS certificate not reloaded", problem=problem, expires=self.expires)

    def _warn_of_expiry(self, now: datetime) -> None:
        left = self.expires - now
        if left > _WARNING_TIME or (self._expiry_logged and now - self._expiry_logged < _WARNING_PERIOD):
            return
        self._expiry_logged = now
        if left > timedelta():
            log.warning("the TLS certificate expires soon", expires=self.expires, days_left=left.days)
        else:
            log.error("the TLS certificate has expired: clients refuse it", expires=self.expires)


def validity(files: TlsFiles) -> tuple[datetime, datetime]:
    """Return from when and until when clients accept the certificate in files; raises CertificateError."""
    loaded = _check(files, _read(files))
    return loaded.valid_from, loaded.expires


def _read(files: TlsFiles) -> _Contents:
    return _Contents(
        certificate=_contents(files.certificate),
        key=_contents(files.key),
        client_ca=_contents(files.client_ca) if files.client_ca else None,
    )


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error


def _check(files: TlsFiles, contents: _Contents) -> _Loaded:
    """Check what gRPC would notice only when a client connects."""
    chain = _certificates(files.certificate, contents.certificate)
    key = _public_key(files.key, contents.key)
    if _bytes(chain[0].public_key()) != _bytes(key):
        raise CertificateError(f"the key in {files.key} is not that of the first certificate in {files.certificate}")
    if files.client_ca and contents.client_ca is not None:
        _certificates(files.client_ca, contents.client_ca)
    return _Loaded(
        contents,
        valid_from=max(certificate.not_valid_before_utc for certificate in chain),
        expires=min(certificate.not_valid_after_utc for certificate in chain),
    )


def _certificates(path: Path, contents: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(contents)
    except ValueError as error:
        raise CertificateError(f"{path} contains no certificates in PEM format, or a broken one") from error


def _public_key(path: Path, contents: bytes) -> PublicKeyTypes:
    try:
        key = serialization.load_pem_private_key(contents, None).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{path} contains no private key in PEM format, or a broken one") from error
    except TypeError as error:
        raise CertificateError(f"the key in {path} is encrypted") from error
    if isinstance(key, rsa.RSAPublicKey):
        usable = key.key_size >= _MIN_RSA_BITS
    else:
        usable = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    if not usable:
        raise CertificateError(
            f"gRPC clients refuse the kind of key in {path}: use ECDSA with P-256 or P-384, or RSA with 2048 bits"
        )
    return key


def _bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
