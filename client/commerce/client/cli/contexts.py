"""Addresses and credentials with a name, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from commerce.client import Client, Tls
from commerce.client.cli.private_files import replacing

_OWNER_ONLY = 0o077
_LONGEST_SECRET = 16_384
_LAST_PORT = 65_535


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
            token = None
            if self.token_file:
                # Read here for the same reason; and again when the server refuses it, because it may be renewed.
                read_secret(self.token_file)
                token = partial(read_secret, self.token_file)
            return Client(
                self.address, tls=tls, api_key=self.api_key, token=token, health_check=health_check, **options
            )
        except (OSError, ValueError) as error:
            raise click.UsageError(f"cannot connect to {self.address}: {error}") from error

    def check(self) -> None:
        """Find mistakes before the first call: with an address, or with files that are no certificates.

        Raises:
            click.UsageError: there is one.
        """
        import ssl

        self.client().close(grace=0)
        context = ssl.create_default_context()
        try:
            if self.ca:
                context.load_verify_locations(_path(self.ca))
            if self.certificate and self.key:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise click.UsageError(f"the certificates cannot be used: {error.strerror or error}") from error

    def credential(self) -> str:
        """Return what the caller shows, without the secret."""
        kinds = {"API key": self.api_key, "token file": self.token_file, "certificate": self.certificate}
        return ", ".join(kind for kind, given in kinds.items() if given) or "none"


def read_secret(name: str | Path) -> str:
    """Return the API key or the token in a file; `-` is standard input.

    Raises:
        click.UsageError: the file cannot be read, or has no such text.
    """
    try:
        with click.open_file(str(name), encoding="ascii") as file:
            # More is no secret, but another file.
            secret = str(file.read(_LONGEST_SECRET + 1)).strip()
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(secret) > _LONGEST_SECRET or len(secret.split()) > 1:
        raise click.UsageError(f"{name} must contain one key or token in ASCII, and nothing else")
    return secret


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
            with replacing(self.path) as file:
                json.dump({"current": self.current, "contexts": contexts}, file, indent=2)
                file.write("\n")
        except OSError as error:
            raise click.UsageError(f"cannot write {self.path}: {error.strerror}") from error

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


class AddressType(click.ParamType[str]):
    """An address of servers: `HOST:PORT`, or with a scheme of gRPC."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address."""
        text = str(value).strip()
        port = re.search(r":(\d+)$", text)
        # gRPC calculates modulo 65536.
        wrong_port = port and not 0 < int(port[1]) <= _LAST_PORT
        if wrong_port or any(char.isspace() or not char.isprintable() for char in text):
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return text


def default_path() -> Path:
    """Return the path of the file, if no other one is named."""
    return Path(click.get_app_dir("commercectl")) / "contexts.json"
