r"""Callers with a client certificate, which gRPC has verified before the first call of the connection.

The SPIFFE ID of the certificate names the caller: its only URI, with the scheme `spiffe` (the X.509-SVID specification
of SPIFFE). For a certificate without one, the subject can.

The certificate itself is read, not the properties that gRPC makes of it: in those, a name ends at its first NUL, so
that a certificate for `spiffe://example.org/admin\0.evil` would be that of `spiffe://example.org/admin`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from service.rpc.identity.caller import Caller
from service.rpc.identity.names import is_name
from service.rpc.identity.recent import Recent

# What names a caller: only a SPIFFE ID, or for a certificate without one the common name of the subject (`CN=billing`)
# or the whole subject (`CN=billing,O=Example`, as in RFC 4514).
Form = Literal["spiffe", "common_name", "subject"]
_SPIFFE = "spiffe://"
# Certificates, and connections, that are remembered.
_MAX_CERTIFICATES = 1000
_MAX_CONNECTIONS = 10_000
# How long a connection is remembered.
REMEMBERED_SECONDS = 1.0


class Connection(Protocol):
    """What gRPC knows of the connection of a call (a part of `grpc.aio.ServicerContext`)."""

    def peer(self) -> str:
        """Return the address of the client."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return all properties of the connection."""

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the alternative names of the client certificate, or its common name if there are none."""


class CertificateIdentities:
    """Names callers by their client certificates.

    Args:
        form: what names a caller.
        clock: returns seconds.
    """

    def __init__(self, form: Form, clock: Callable[[], float] = time.monotonic) -> None:
        self._form = form
        self._clock = clock
        # By the certificate. None is remembered in a tuple, too.
        self._callers: Recent[bytes, tuple[Caller | None]] = Recent(_MAX_CERTIFICATES)
        # Reading the certificate of a connection takes gRPC 5 µs, and reading its names 0.3 µs. So the SPIFFE ID of a
        # connection is remembered for a short time by the address of the client and these names. Only a certificate
        # with a NUL in its SPIFFE ID could be taken for another one, within that time and from the same address. Many
        # certificates can have the same alternative names and different subjects, so subjects are not remembered.
        self._connections: Recent[tuple[str | bytes, ...], tuple[Caller, float]] = Recent(_MAX_CONNECTIONS)

    def caller(self, connection: Connection) -> Caller | None:
        """Return the caller; None without a client certificate, or if nothing in it can name a caller."""
        names = connection.peer_identities()
        if not names and self._form == "spiffe":
            return None
        key: tuple[str | bytes, ...] = (connection.peer(), *(names or ()))
        now = self._clock()
        if (known := self._connections.get(key)) and now < known[1]:
            return known[0]
        certificate = next(iter(connection.auth_context().get("x509_pem_cert", ())), None)
        if certificate is None:
            return None
        remembered = self._callers.get(certificate)
        if remembered is None:
            remembered = (self._named(certificate),)
            self._callers.put(certificate, remembered)
        (caller,) = remembered
        if caller and caller.name.startswith(_SPIFFE):
            self._connections.put(key, (caller, now + REMEMBERED_SECONDS))
        return caller

    def _named(self, pem: bytes) -> Caller | None:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            name = _spiffe_id(certificate) or self._name_of_subject(certificate.subject)
        except (ValueError, x509.DuplicateExtension):
            # gRPC accepts certificates that this library does not.
            return None
        return Caller(name) if is_name(name) else None

    def _name_of_subject(self, subject: x509.Name) -> str:
        """Return the name that a subject gives; empty if it gives none."""
        match self._form:
            case "spiffe":
                return ""
            case "common_name":
                found = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
                return f"CN={found[0]}" if len(found) == 1 and isinstance(found[0], str) and found[0] else ""
            case "subject":
                return subject.rfc4514_string()


def _spiffe_id(certificate: x509.Certificate) -> str:
    """Return the SPIFFE ID of a certificate; empty if it has none."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 and uris[0].startswith(_SPIFFE) else ""
