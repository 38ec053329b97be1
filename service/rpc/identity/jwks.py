"""The public keys of an issuer: a JSON Web Key Set (RFC 7517) from a file or a URL."""

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any

import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from service.rpc.identity.issuers import Issuer
from service.runtime.file_version import file_version

# Keys at a URL are loaded again after this time, so that a removed key is refused,
MAX_AGE_SECONDS = 300.0
# for a key that is not known yet, but not more often than this,
MIN_AGE_SECONDS = 60.0
# and until they have been loaded for the first time.
RETRY_SECONDS = 10.0
# How long loading may take, and how large a key set may be.
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 1 << 20
# Smaller RSA keys are too weak (NIST SP 800-131A), and larger ones too slow.
_RSA_BITS = range(2048, 8193)
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

log = structlog.get_logger()


class JwksError(Exception):
    """A key set cannot be loaded. The message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class Jwk:
    """A public key, and the algorithms whose signatures it may verify."""

    key: PublicKey
    algorithms: frozenset[str]


class KeySet:
    """The public keys of an issuer. When loading them fails, the last ones stay in use.

    Args:
        issuer: where its keys are, and which algorithms it may use.
        on_removed: called when a key is no longer in the set.
        clock: returns seconds.

    Attributes:
        loads: how often the keys were loaded, by outcome (`ok`, `failed`).
        problem: why the keys could not be loaded the last time; None if they could.
        loaded_at: when the keys in use were loaded, in seconds since 1970; 0 before.
    """

    def __init__(
        self, issuer: Issuer, on_removed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._on_removed = on_removed
        self._clock = clock
        self._keys: Mapping[str, Jwk] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._loaded = -MAX_AGE_SECONDS
        self._seen: object = None
        self.loads: Counter[str] = Counter()
        self.problem: str | None = None
        self.loaded_at = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether the keys have never been loaded, so that no token can be verified."""
        return self._keys is None

    def find(self, key_id: str | None, algorithm: str) -> Jwk | None:
        """Return the key for a token; without a key id, the only key for this algorithm."""
        keys = self._keys or {}
        if key_id is None:
            fitting = [jwk for jwk in keys.values() if algorithm in jwk.algorithms]
            return fitting[0] if len(fitting) == 1 else None
        found = keys.get(key_id)
        return found if found and algorithm in found.algorithms else None

    async def load_unknown(self) -> None:
        """Load the keys because one is missing: once for all who wait, and at most once a minute.

        A file that has not changed is not read.
        """
        await self._load_if_older_than(MIN_AGE_SECONDS)

    async def load_if_due(self) -> None:
        """Load the keys if their file has changed, or if they are old."""
        await self._load_if_older_than(MAX_AGE_SECONDS)

    async def _load_if_older_than(self, seconds: float) -> None:
        if self._loading is None and (self._file_has_changed() or self._url_is_due(seconds)):
            self._loading = asyncio.create_task(self._load())
        if self._loading:
            # The call that began it may be cancelled; the others still wait.
            await asyncio.shield(self._loading)

    def _url_is_due(self, seconds: float) -> bool:
        age = self._clock() - self._loaded
        return isinstance(self._issuer.jwks, str) and age >= (RETRY_SECONDS if self.is_empty else seconds)

    def _file_has_changed(self) -> bool:
        return isinstance(self._issuer.jwks, Path) and file_version(self._issuer.jwks) != self._seen

    async def _load(self) -> None:
        try:
            await self.load()
        except JwksError as error:
            log.warning(
                "keys of an issuer not loaded; those that were loaded before stay in use",
                issuer=self._issuer.name,
                problem=str(error),
            )
        finally:
            self._loading = None

    async def load(self) -> None:
        """Load the keys.

        Raises:
            JwksError: they cannot be loaded, or none of them can be used.
        """
        source = self._issuer.jwks
        if isinstance(source, Path):
            self._seen = file_version(source)
        self._loaded = self._clock()
        try:
            # In a thread, because it waits for a disk or a network.
            data = await asyncio.to_thread(_read_file if isinstance(source, Path) else _fetch, source)
            keys = _parse(data, self._issuer.algorithms)
        except JwksError as error:
            self.loads["failed"] += 1
            self.problem = str(error)
            raise
        self.loads["ok"] += 1
        self.loaded_at = time.time()
        self.problem = None
        before, self._keys = self._keys or {}, keys
        if any(keys.get(key_id) != jwk for key_id, jwk in before.items()):
            self._on_removed()
        if keys.keys() != before.keys():
            log.info("keys of an issuer loaded", issuer=self._issuer.name, keys=len(keys))


def _read_file(path: Any) -> bytes:  # noqa: ANN401 - a path; mypy cannot follow the choice of function
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise JwksError(f"the key set cannot be read: {error.strerror}") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which could lead to a source that the operator has not named."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - the signature of the standard library
        fp: IO[bytes],  # noqa: ARG002 - as above
        code: int,  # noqa: ARG002 - as above
        msg: str,  # noqa: ARG002 - as above
        headers: HTTPMessage,  # noqa: ARG002 - as above
        newurl: str,  # noqa: ARG002 - as above
    ) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _fetch(url: Any) -> bytes:  # noqa: ANN401 - a URL; as above
    give_up = time.monotonic() + _TIMEOUT_SECONDS
    data = b""
    try:
        with _opener.open(url, timeout=_TIMEOUT_SECONDS) as response:
            # The timeout is that of each step, and a slow source could send single bytes.
            while len(data) <= _MAX_BYTES and (part := response.read1(1 << 16)):
                data += part
                if time.monotonic() > give_up:
                    raise JwksError(f"the key set was not sent within {_TIMEOUT_SECONDS:g} s")
    except (OSError, HTTPException, ValueError) as error:
        status = getattr(error, "code", None)
        raise JwksError(f"the key set cannot be fetched{f': HTTP {status}' if status else ''}") from error
    return data


def _parse(data: bytes, algorithms: frozenset[str]) -> dict[str, Jwk]:
    """Return the usable keys of a key set by their ids; a key without an id has an empty one."""
    if len(data) > _MAX_BYTES:
        raise JwksError(f"the key set is larger than {_MAX_BYTES} bytes")
    try:
        listed = orjson.loads(data)["keys"]
        found = {entry.get("kid", ""): _jwk(entry, algorithms) for entry in listed}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JwksError("the key set is not a JSON Web Key Set") from error
    keys = {key_id: jwk for key_id, jwk in found.items() if jwk}
    if not keys:
        raise JwksError(f"the key set has no key for {', '.join(sorted(algorithms))}")
    return keys


def _jwk(entry: dict[str, Any], algorithms: frozenset[str]) -> Jwk | None:
    """Return a key; None for a key that must not verify signatures, or not with these algorithms."""
    # Keys for encryption, symmetric keys, and types that nobody knows yet are often in the same set.
    if entry.get("kty") not in {"RSA", "EC", "OKP"} or entry.get("use", "sig") != "sig":
        return None
    declared = entry.get("alg")
    if declared is not None and declared not in algorithms:
        return None
    try:
        key: Any = PyJWK(entry).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if hasattr(key, "private_numbers"):
        key = key.public_key()
    possible = _algorithms_of(key) & algorithms
    if declared is not None:
        possible &= {declared}
    return Jwk(key, possible) if possible else None


def _algorithms_of(key: object) -> frozenset[str]:
    match key:
        case RSAPublicKey():
            return _RSA_ALGORITHMS if key.key_size in _RSA_BITS else frozenset()
        case EllipticCurvePublicKey():
            return frozenset({_EC_ALGORITHMS.get(key.curve.name, "")})
        case Ed25519PublicKey():
            return frozenset({"EdDSA"})
    return frozenset()
