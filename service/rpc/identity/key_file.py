"""The file of API keys: a TOML file with the name and the SHA-256 hash of each key, written by `commerce keys`.

    [[keys]]
    name = "billing"
    id = "k2v5q7mxa3"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    create_time = 2026-11-30T12:00:00Z
    expire_time = 2027-11-30T12:00:00Z

A plain hash is right here, unlike for passwords: a key has 256 random bits, so that nobody can find it by trying, and a
slow hash would only slow down each call.
"""

import base64
import hashlib
import re
import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# How many keys of one name may be valid at the same time: the old one and the new one of a rotation.
MAX_VALID_KEYS = 2
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Scanners for leaked secrets find keys by this prefix.
_PREFIX = "commerce"
_ID = re.compile(r"[a-z2-7]{10}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID_BYTES, _SECRET_BYTES = 7, 32
_MAX_FILE_BYTES = 4 << 20
_FIELDS = {"name", "id", "sha256", "create_time", "expire_time"}
_HEADER = """\
# API keys of the service, written by `commerce keys`. It has only their hashes: a lost key cannot be recovered.
"""


class KeyFileError(Exception):
    """A file of API keys cannot be read or is not valid. The message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as the file has it.

    Attributes:
        name: the name of the caller, without `key:`.
        id: the public part of the key, which names it in the file and in `commerce keys`.
        sha256: the hash of the whole key.
        create_time: when it was made.
        expire_time: when it stops being valid; None means never.
    """

    name: str
    id: str
    sha256: bytes
    create_time: datetime
    expire_time: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        """Return whether the key is no longer valid."""
        return self.expire_time is not None and self.expire_time <= now


def new_key(name: str, now: datetime, expire_time: datetime | None = None) -> tuple[str, StoredKey]:
    """Return a new key, which is shown once, and what the file has of it."""
    key_id = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()[:10]
    key = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return key, StoredKey(name, key_id, digest(key), now, expire_time)


def digest(key: str) -> bytes:
    """Return the hash of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def id_of(key: str) -> str:
    """Return the id in a key; empty if it has none."""
    prefix, _, rest = key.partition("_")
    return rest.partition("_")[0] if prefix == _PREFIX else ""


def read_keys(path: Path) -> list[StoredKey]:
    """Return the keys of a file.

    Raises:
        KeyFileError: the file cannot be read, or is not valid.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise KeyFileError(f"the file of API keys is larger than {_MAX_FILE_BYTES} bytes")
        content = tomllib.loads(data.decode())
    except OSError as error:
        raise KeyFileError(f"the file of API keys cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError("the file of API keys is not valid TOML") from error
    unknown = content.keys() - {"keys"}
    listed = content.get("keys", [])
    if unknown or not isinstance(listed, list):
        raise KeyFileError("the file of API keys must have nothing but [[keys]]")
    keys = [_stored(number, entry) for number, entry in enumerate(listed, 1)]
    if len({key.id for key in keys}) < len(keys):
        raise KeyFileError("the file of API keys has the same id twice")
    return keys


def format_keys(keys: Iterable[StoredKey]) -> str:
    """Return the content of a file with these keys."""
    return _HEADER + "".join(f"\n[[keys]]\n{_lines(key)}" for key in keys)


def _lines(key: StoredKey) -> str:
    # No value needs escaping: a name is letters and digits.
    lines = [
        f'name = "{key.name}"',
        f'id = "{key.id}"',
        f'sha256 = "{key.sha256.hex()}"',
        f"create_time = {_time(key.create_time)}",
    ]
    if key.expire_time:
        lines.append(f"expire_time = {_time(key.expire_time)}")
    return "\n".join(lines) + "\n"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _stored(number: int, entry: Any) -> StoredKey:  # noqa: ANN401 - any value of TOML
    problem = f"key {number} in the file of API keys "
    if not isinstance(entry, dict) or entry.keys() - _FIELDS:
        raise KeyFileError(f"{problem}must have only {', '.join(sorted(_FIELDS))}")
    for field, form in (("name", NAME), ("id", _ID), ("sha256", _SHA256)):
        value = entry.get(field)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise KeyFileError(f"{problem}has no valid {field}")
    times = entry.get("create_time"), entry.get("expire_time")
    if not isinstance(times[0], datetime) or not isinstance(times[1], datetime | None):
        raise KeyFileError(f"{problem}has no valid create_time or expire_time")
    if any(time and time.tzinfo is None for time in times):
        raise KeyFileError(f"{problem}has a time without an offset, such as Z")
    return StoredKey(entry["name"], entry["id"], bytes.fromhex(entry["sha256"]), times[0], times[1])
