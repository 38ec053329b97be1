"""Callers with a JSON Web Token (RFC 7519), sent as `authorization: Bearer …`; follows RFC 8725.

Verifying a signature takes 0.1 to 0.2 ms, so a verified token is remembered until it expires.
"""

import base64
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import jwt
import orjson

from service.rpc.identity.caller import Caller
from service.rpc.identity.issuers import Issuer
from service.rpc.identity.jwks import Jwk, KeySet
from service.rpc.identity.names import is_name
from service.rpc.identity.recent import Recent
from service.rpc.identity.refusals import Refusals
from service.rpc.status import IssuerUnavailable

MAX_TOKENS = 10_000
# gRPC accepts larger metadata, but no token is that large.
_MAX_BYTES = 8192
_SCHEME = "bearer "
_REQUIRED = ["exp", "iss", "aud", "sub"]


class Tokens:
    """Verifies tokens.

    Args:
        issuers: whose tokens are accepted.
        refusals: makes the errors.
        clock: returns the seconds since 1970.

    Attributes:
        key_sets: the keys of each issuer, by its name.
    """

    def __init__(self, issuers: Sequence[Issuer], refusals: Refusals, clock: Callable[[], float] = time.time) -> None:
        self._refusals = refusals
        self._clock = clock
        # By the whole value of the metadata: the caller, and when the token expires.
        self._verified: Recent[str, tuple[Caller, float]] = Recent(MAX_TOKENS)
        # A removed key must not be trusted through the tokens that it has signed.
        self.key_sets = {issuer.name: KeySet(issuer, self._verified.clear) for issuer in issuers}
        self._issuers = {issuer.issuer: (issuer, self.key_sets[issuer.name]) for issuer in issuers}

    def known(self, authorization: str | bytes) -> Caller | None:
        """Return the caller with a token that was verified before; None if it must be verified."""
        found = self._verified.get(authorization)  # type: ignore[arg-type] # bytes are never in it
        return found[0] if found and self._clock() < found[1] else None

    async def caller(self, authorization: str | bytes) -> Caller:
        """Verify a token, and return its caller.

        Raises:
            UnauthenticatedCaller: it is not valid, or has expired.
            IssuerUnavailable: the keys of its issuer could not be loaded yet.
        """
        try:
            token = _Unverified(authorization)
        except ValueError:
            raise self._unknown() from None
        issuer, keys = self._issuers.get(token.issuer, (None, None))
        if issuer is None or keys is None or token.algorithm not in issuer.algorithms:
            raise self._unknown()
        # Before the signature, because this is cheaper, and says nothing that the caller does not know.
        expires = token.expires + issuer.leeway
        if self._clock() >= expires:
            raise self._expired()
        jwk = keys.find(token.key_id, token.algorithm)
        if jwk is None:
            await keys.load_unknown()
            jwk = keys.find(token.key_id, token.algorithm)
        if jwk is None:
            raise IssuerUnavailable if keys.is_empty else self._unknown()
        caller = _caller(issuer, self._subject(token, issuer, jwk))
        if caller is None:
            raise self._unknown()
        self._verified.put(token.authorization, (caller, expires))
        return caller

    def _subject(self, token: "_Unverified", issuer: Issuer, jwk: Jwk) -> str:
        """Verify the signature and the claims of a token, and return its subject."""
        try:
            claims = jwt.decode(
                token.text,
                jwk.key,
                algorithms=[token.algorithm],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=issuer.leeway,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise self._expired() from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise self._unknown() from None
        return str(claims["sub"])

    def _expired(self) -> Exception:
        return self._refusals.error("bearer token", "expired")

    def _unknown(self) -> Exception:
        return self._refusals.error("bearer token", "unknown")


class _Unverified:
    """What a token says of itself, before its signature is verified; raises ValueError if it is not a token.

    Attributes:
        authorization: the value of the metadata.
        text: the token.
        key_id: the id of the key that has signed it, if it names one.
        algorithm: the algorithm of its signature.
        issuer: who has issued it.
        expires: until when it is valid, in seconds since 1970.
    """

    def __init__(self, authorization: str | bytes) -> None:
        if not isinstance(authorization, str) or len(authorization) > _MAX_BYTES:
            raise ValueError("not a short text")
        scheme, self.text = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        if scheme.lower() != _SCHEME:
            raise ValueError("not a bearer token")
        header, claims, _signature = self.text.split(".")
        self.authorization = authorization
        self.key_id = _member(_decoded(header), "kid", str, None)
        self.algorithm: str = _member(_decoded(header), "alg", str)
        payload = _decoded(claims)
        self.issuer: str = _member(payload, "iss", str)
        self.expires: float = _member(payload, "exp", (int, float))


_NEEDED = object()


def _member(parsed: Any, name: str, kind: type | tuple[type, ...], default: Any = _NEEDED) -> Any:  # noqa: ANN401 - parsed JSON
    """Return a member of an object with the right type; raises ValueError."""
    if not isinstance(parsed, dict):
        raise ValueError("not an object")  # noqa: TRY004 - as above
    value = parsed.get(name, default)
    if (value is not default and not isinstance(value, kind)) or value is _NEEDED:
        raise ValueError(f"no {name}")
    return value


def _decoded(part: str) -> Any:  # noqa: ANN401 - as above
    # Padding beyond what is needed is ignored.
    return orjson.loads(base64.urlsafe_b64decode(part + "=="))


def _caller(issuer: Issuer, subject: str) -> Caller | None:
    """Return the caller of a verified token; None if its subject cannot name one."""
    if issuer.subjects == "users":
        try:
            user_id = UUID(subject)
        except ValueError:
            return None
        return Caller(f"jwt:{issuer.name}:{user_id}", user_id)
    name = f"jwt:{issuer.name}:{subject}"
    return Caller(name) if subject and is_name(name) else None
