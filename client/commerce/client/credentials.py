"""Who the client is: certificates, an API key, or tokens that are renewed before they expire."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc

from commerce.client.errors import CredentialsError
from commerce.client.failures import Failure, Outcome

if TYPE_CHECKING:
    from commerce.client.options import Metadata


@dataclass(frozen=True, slots=True)
class Token:
    """A token (JWT) and when it expires.

    Attributes:
        value: the token itself; it is not part of the token's text.
        expire_time: when it expires, with a time zone; None if that is not known or never.
    """

    value: str
    expire_time: datetime | None = None

    def __post_init__(self) -> None:
        if self.expire_time is not None and self.expire_time.tzinfo is None:
            raise ValueError("expire_time needs a time zone")

    def __repr__(self) -> str:
        return f"Token(expire_time={self.expire_time!r})"


TokenSource: TypeAlias = Callable[[], Token | str]
"""Returns a new token. It is called before the token expires, and when the server refuses it."""
AsyncTokenSource: TypeAlias = Callable[[], Token | str | Awaitable[Token | str]]
"""The same for `AsyncClient`; it may be a coroutine function."""

RENEW_SECONDS = 60.0
"""How long before a token expires a new one is asked for."""
RENEW_AGAIN_SECONDS = 5.0
"""How long a token that could not be renewed is used before the next try."""
TOO_SLOW = "took longer than the call has"


def no_token(problem: str = "failed") -> CredentialsError:
    """Return the error of a call for which there is no token; `problem` is what the function did."""
    failure = Failure(
        message=f"the function that returns the token {problem}",
        code=CredentialsError.default_code,
        outcome=Outcome.NOT_WRITTEN,
        attempts=0,
    )
    return CredentialsError(failure)


def static_metadata(api_key: str | None, token: str | None) -> Metadata:
    """Return the metadata of all calls of a client: its API key, and a token that is not renewed."""
    key = (("x-api-key", api_key),) if api_key else ()
    return key if token is None else (*key, _bearer(token))


def _bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


class HeldToken:
    """The current token of a client, and whether it is time for another: what both clients share."""

    def __init__(self) -> None:
        self._header: tuple[str, str] | None = None
        self._renew_at = 0.0
        self._expires_at = 0.0

    def set(self, token: Token | str) -> tuple[str, str]:
        """Use this token from now on; returns the metadata with it."""
        if isinstance(token, str):
            token = Token(token)
        seconds = float("inf")
        if token.expire_time is not None:
            seconds = (token.expire_time - datetime.now(UTC)).total_seconds()
        now = time.monotonic()
        # Of a token that is valid for less than two minutes, the second half.
        self._renew_at = now + max(seconds - RENEW_SECONDS, seconds / 2)
        self._expires_at = now + seconds
        self._header = header = _bearer(token.value)
        return header

    def fresh(self) -> tuple[str, str] | None:
        """Return the metadata with the token, if it need not be renewed yet."""
        return self._header if time.monotonic() < self._renew_at else None

    def usable(self) -> tuple[str, str] | None:
        """Return the metadata with the token, if it has not expired."""
        return self._header if time.monotonic() < self._expires_at else None

    def postpone(self, seconds: float) -> None:
        """Try to renew the token again only after some seconds: renewing it has failed."""
        self._renew_at = time.monotonic() + seconds

    def refuse(self, header: tuple[str, str] | None) -> bool:
        """Forget the token, because the server refused it; returns whether there may be another one."""
        if header is None:
            return False
        if header == self._header:
            self._header = None
        return True


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is encrypted, and the client's certificate.

    Attributes:
        ca: certificates of the CAs that may have signed the server's: PEM, or a file with it. None for those that gRPC
            trusts.
        certificate: the client's certificate and the intermediate ones: PEM, or a file with it.
        key: its private key: PEM, or a file with it.
        server_name: the name in the server's certificate, if it is not that in the address.
    """

    ca: bytes | Path | None = None
    certificate: bytes | Path | None = None
    key: bytes | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs both certificate and key")

    def __repr__(self) -> str:
        return f"Tls(server_name={self.server_name!r}, with_client_certificate={self.certificate is not None})"

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Read the files, and return what gRPC needs.

        Raises:
            OSError: a file cannot be read.
        """
        ca, key, certificate = (_contents(part) for part in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _contents(part: bytes | Path | None) -> bytes | None:
    return part.read_bytes() if isinstance(part, Path) else part
