"""Addresses and credentials with a name, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from commerce.client import Client, Tls

_OWNER_ONLY = 0o077


@dataclass(frozen=True, slots=True)
class Context:
    """Where a service is, and who calls it.

    Attributes:
        address: of the servers, such as `commerce.example.com:443`.
        tls: whether the connection is encrypted; None for plaintext on this machine only.
        ca: file with the certificates of the CAs that may have signed the server's.
        certificate: file with the client's certificate.
        key: file with its private key.
        server_name: the name in the server's certificate, if it is not that in the address.
        api_key: the caller's API key.
        token_file: file with the caller's token, read again by each command.
    """

    address: str
    tls: bool | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None
    api_key: str | None = field(default=None, repr=False)
    token_file: str | None = None

    def client(self, *, health_check: bool = True, **options: Any) -> Client:
        """Return a client of this service; `options` are those of its calls.

        Raises:
            click.UsageError: the credentials cannot be read, or do not fit together.
        """
        tls: Tls | bool | None = self.tls
        try:
            if self.ca or self.certificate or self.key or self.server_name:
                if tls is False:
                    raise ValueError("certificates need TLS")
                tls = Tls(_path(self.ca), _path(self.certificate), _path(self.key), self.server_name)
                # Read here, where an error can say what is wrong with which file.
                tls.channel_credentials()
            token = Path(self.token_file).read_text(encoding="ascii").strip() if self.token_file else None
            return Client(
                self.address, tls=tls, api_key=self.api_key, token=token, health_check=health_check, **options
            )
        except (OSError, ValueError) as error:
            raise click.UsageError(f"cannot connect to {self.address}: {error}") from error

    def credential(self) -> str:
        """Return what the caller shows, without the secret."""
        kinds = {"API key": self.api_key, "token file": self.token_file, "certificate": self.certificate}
        return ", ".join(kind for kind, given in kinds.items() if given) or "none"


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None


class ContextFile:
    """The file with all contexts, and the name of the current one.

    Attributes:
        path: of the file.
        contexts: by their names.
        current: the name of the one that commands use; None for none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contexts: dict[str, Context] = {}
        self.current: str | None = None
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except OSError as error:
            raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
        if os.name == "posix" and path.stat().st_mode & _OWNER_ONLY:
            mode = stat.filemode(path.stat().st_mode)
            raise click.UsageError(f"others can read the credentials in {path} ({mode}); run: chmod 600 {path}")
        try:
            stored = json.loads(text)
            self.contexts = {name: Context(**fields) for name, fields in stored["contexts"].items()}
            self.current = stored["current"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise click.UsageError(f"{path} is damaged: {error}; correct or delete it") from error

    def save(self) -> None:
        """Write the file, readable only by its owner, in place of the old one."""
        contexts = {
            name: {key: value for key, value in asdict(context).items() if value is not None}
            for name, context in self.contexts.items()
        }
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp creates files with mode 0600.
            descriptor, part = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        except OSError as error:
            raise click.UsageError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"current": self.current, "contexts": contexts}, file, indent=2)
                file.write("\n")
            Path(part).replace(self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(part).unlink()
            raise

    def find(self, name: str | None) -> Context | None:
        """Return a context by its name, or the current one; None if there is no current one.

        Raises:
            click.UsageError: there is no context of this name.
        """
        name = name or self.current
        if name is None:
            return None
        try:
            return self.contexts[name]
        except KeyError:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise click.UsageError(f"there is no context {name!r}; those that exist: {known}") from None


def default_path() -> Path:
    """Return the path of the file, if no other one is named."""
    return Path(click.get_app_dir("commercectl")) / "contexts.json"
