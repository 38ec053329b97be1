"""The issuers whose tokens are accepted: a TOML file.

    [issuers.accounts]
    issuer = "https://accounts.example.com"
    audience = "commerce"
    algorithms = ["ES256"]
    jwks = "https://accounts.example.com/.well-known/jwks.json"
    subjects = "users"

The name of the table is a part of the names of callers: `jwt:accounts:<subject>`.
"""

import re
import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

# Only signatures that the verifier cannot make: with a shared secret (HS256), this server could issue tokens too, and
# so could everybody who reads its files. `none` is no signature.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
)
MAX_LEEWAY_SECONDS = 60
_DEFAULT_LEEWAY_SECONDS = 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FIELDS = {"issuer", "audience", "algorithms", "jwks", "subjects", "leeway"}
_MAX_FILE_BYTES = 1 << 20


class IssuerFileError(Exception):
    """A file of issuers cannot be used. The message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of tokens.

    Attributes:
        name: its name in the file.
        issuer: the claim `iss` of its tokens.
        audience: what the claim `aud` of a token must be or contain.
        algorithms: the algorithms of signatures that are accepted.
        jwks: where its public keys are: a URL, or a file.
        subjects: what the claim `sub` names: services, or users by their ids.
        leeway: seconds by which the clocks of the issuer and of this server may differ.
    """

    name: str
    issuer: str
    audience: str
    algorithms: frozenset[str]
    jwks: str | Path
    subjects: Literal["services", "users"] = "services"
    leeway: float = _DEFAULT_LEEWAY_SECONDS


def read_issuers(path: Path) -> list[Issuer]:
    """Return the issuers of a file; relative paths in it are relative to its folder.

    Raises:
        IssuerFileError: the file cannot be read, or is not valid.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.loads(file.read(_MAX_FILE_BYTES).decode())
    except OSError as error:
        raise IssuerFileError(f"the file of issuers cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise IssuerFileError(f"the file of issuers is not valid TOML: {error}") from error
    tables = content.get("issuers")
    if content.keys() != {"issuers"} or not isinstance(tables, dict) or not tables:
        raise IssuerFileError("the file of issuers must have a table [issuers.<name>] for each issuer and nothing else")
    issuers = [_issuer(name, table, path.parent) for name, table in tables.items()]
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise IssuerFileError("two issuers in the file of issuers have the same `issuer`")
    return issuers


def _issuer(name: str, table: Any, folder: Path) -> Issuer:  # noqa: ANN401 - any value of TOML
    if not _NAME.fullmatch(name):
        raise _wrong(name, "has a name that is not 1 to 63 letters, digits, dots, hyphens and underscores")
    if not isinstance(table, dict) or table.keys() - _FIELDS:
        raise _wrong(name, f"must have only {', '.join(sorted(_FIELDS))}")
    for field in ("issuer", "audience", "jwks"):
        if not isinstance(table.get(field), str) or not table[field]:
            raise _wrong(name, f"needs `{field}`, a text")
    algorithms = table.get("algorithms")
    if not isinstance(algorithms, list) or not algorithms or not all(isinstance(one, str) for one in algorithms):
        raise _wrong(name, "needs `algorithms`, a list of the algorithms that sign its tokens")
    if refused := [algorithm for algorithm in algorithms if algorithm not in ALGORITHMS]:
        raise _wrong(name, f"may not use {', '.join(refused)}; use {', '.join(sorted(ALGORITHMS))}")
    subjects = table.get("subjects", "services")
    if subjects not in ("services", "users"):
        raise _wrong(name, "has `subjects` that are neither services nor users")
    leeway = table.get("leeway", _DEFAULT_LEEWAY_SECONDS)
    if type(leeway) not in (int, float) or not 0 <= leeway <= MAX_LEEWAY_SECONDS:
        raise _wrong(name, f"has a `leeway` that is not 0 to {MAX_LEEWAY_SECONDS} seconds")
    jwks = _location(name, table["jwks"], folder)
    return Issuer(name, table["issuer"], table["audience"], frozenset(algorithms), jwks, subjects, leeway)


def _location(name: str, jwks: str, folder: Path) -> str | Path:
    if "://" not in jwks:
        return folder / jwks
    url = urlsplit(jwks)
    if url.scheme == "https" and url.hostname:
        return jwks
    if url.scheme == "http" and url.hostname and _is_loopback(url.hostname):
        return jwks
    # A party in between could send keys of its own.
    raise _wrong(name, "needs `jwks` with https://; http:// is only for this machine")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _wrong(name: str, problem: str) -> IssuerFileError:
    return IssuerFileError(f"issuer {name[:100]!r} in the file of issuers {problem}")
