"""The `commerce keys` commands: create, revoke and list API keys."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from commerce.client.cli.private_files import replacing

from service.config import IdentitySettings, SettingsError, environment_name, load
from service.rpc.identity.key_file import MAX_VALID_KEYS, NAME, KeyFileError, StoredKey, format_keys, new_key, read_keys

_SETTING = environment_name(IdentitySettings, "api_keys_file")


def create_key(name: str, *, file: Path | None, days: int | None) -> None:
    """Add a key to the file, and print it."""
    if not NAME.fullmatch(name):
        raise click.ClickException("a name has 1 to 63 letters, digits, dots, hyphens and underscores")
    now = datetime.now(UTC)
    key, stored = new_key(name, now, now + timedelta(days=days) if days else None)

    def add(keys: Sequence[StoredKey]) -> list[StoredKey]:
        valid = [known.id for known in keys if known.name == name and not known.has_expired(now)]
        if len(valid) >= MAX_VALID_KEYS:
            raise click.ClickException(f"{name} has {len(valid)} valid keys, {' and '.join(valid)}: revoke one first")
        return [*keys, stored]

    with _one_line_errors():
        path = _path(file)
        _change(path, add)
    click.echo(f"key {stored.id} of {name}{_expiry(stored)}, shown only now; send it as x-api-key:", err=True)
    click.echo(key)


def revoke_key(key_id: str, *, file: Path | None) -> None:
    """Remove a key from the file."""

    def remove(keys: Sequence[StoredKey]) -> list[StoredKey]:
        kept = [key for key in keys if key.id != key_id]
        if len(kept) == len(keys):
            named = [key.id for key in keys if key.name == key_id]
            hint = f"; {key_id} has {' and '.join(named)}" if named else ""
            raise click.ClickException(f"there is no key with this id{hint}")
        return kept

    with _one_line_errors():
        _change(_path(file), remove)
    click.echo(f"key {key_id} revoked; a server that runs refuses it within two seconds", err=True)


def list_keys(*, file: Path | None) -> None:
    """Print the keys of the file, without what is secret."""
    now = datetime.now(UTC)
    with _one_line_errors():
        keys = read_keys(_path(file))
    for key in sorted(keys, key=lambda key: (key.name, key.create_time)):
        click.echo(f"{key.id}  {key.name}  created {key.create_time:%Y-%m-%d}{_expiry(key, now)}")


def _expiry(key: StoredKey, now: datetime | None = None) -> str:
    if key.expire_time is None:
        return ", never expires"
    return f", {'expired' if now and key.has_expired(now) else 'expires'} {key.expire_time:%Y-%m-%d %H:%M} UTC"


def _path(file: Path | None) -> Path:
    path = file or load(IdentitySettings).api_keys_file
    if path is None:
        raise click.ClickException(f"name the file of keys with --file, or set {_SETTING}")
    return path


def _change(path: Path, change: Callable[[Sequence[StoredKey]], Sequence[StoredKey]]) -> None:
    """Replace the file, which is created if it does not exist. Of several commands, one changes it at a time."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = change(read_keys(path) if path.exists() else [])
        with replacing(path) as new:
            new.write(format_keys(keys))
            new.flush()
            os.fsync(new.fileno())
    finally:
        os.close(folder)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, SettingsError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"the file of API keys cannot be written: {error.strerror}") from error
