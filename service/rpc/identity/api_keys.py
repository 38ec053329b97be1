"""Callers with an API key (`x-api-key`)."""

import hmac
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from service.rpc.identity.caller import Caller
from service.rpc.identity.key_file import KeyFileError, StoredKey, digest, id_of, read_keys
from service.rpc.identity.refusals import Refusals
from service.runtime.file_version import file_version

log = structlog.get_logger()


class ApiKeys:
    """Verifies API keys, and reads their file again when it has changed. A file that is not valid changes nothing.

    Args:
        path: the file of keys (`service.rpc.identity.key_file`).
        refusals: makes the errors.
        clock: returns the seconds since 1970.

    Attributes:
        problem: why the file cannot be used now; None if its keys are in use.
        loaded_at: when the keys in use were read, in seconds since 1970; 0 before.
    """

    def __init__(self, path: Path, refusals: Refusals, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._refusals = refusals
        self._clock = clock
        self._seen: object = None
        # By the id of the key: its hash, when it expires (seconds since 1970), and the caller.
        self._keys: dict[str, tuple[bytes, float, Caller]] = {}
        self.problem: str | None = None
        self.loaded_at = 0.0

    def load(self) -> None:
        """Read the file.

        Raises:
            KeyFileError: it cannot be read, or is not valid.
        """
        self._seen = file_version(self._path)
        self._use(read_keys(self._path))

    def reload(self) -> None:
        """Read the file if it has changed since it was read; log if it cannot be used, and keep the keys."""
        version = file_version(self._path)
        if version == self._seen:
            return
        # Also if it cannot be used, so that this is logged once.
        self._seen = version
        try:
            self._use(read_keys(self._path))
        except KeyFileError as error:
            self.problem = str(error)
            log.warning("API keys not changed: their file cannot be used", problem=self.problem)
        else:
            self.problem = None
            log.info("API keys changed", keys=len(self._keys))

    def caller(self, sent: str | bytes) -> Caller:
        """Return the caller with this key.

        Raises:
            UnauthenticatedCaller: there is no such key, or it has expired.
        """
        key = sent if isinstance(sent, str) else ""
        found = self._keys.get(id_of(key))
        if found is None:
            raise self._refusals.error("API key", "unknown")
        sha256, expires, caller = found
        # In constant time: how long a comparison takes must not tell how much of the hash is right.
        if not hmac.compare_digest(sha256, digest(key)):
            raise self._refusals.error("API key", "unknown")
        if self._clock() >= expires:
            raise self._refusals.error("API key", "expired")
        return caller

    def likely_name(self, sent: str | bytes) -> str | None:
        """Return the name of the caller with the id of this key, without looking at the rest of the key."""
        found = self._keys.get(id_of(sent)) if isinstance(sent, str) else None
        return None if found is None else found[2].name

    def _use(self, keys: Sequence[StoredKey]) -> None:
        self._keys = {
            key.id: (
                key.sha256,
                key.expire_time.timestamp() if key.expire_time else float("inf"),
                Caller(f"key:{key.name}"),
            )
            for key in keys
        }
        self.loaded_at = time.time()
