"""Read a policy from its file, and say what is wrong with it.

A policy is a TOML file of two tables: `roles` has the permissions of each role, and `identities` the roles of each
identity (`docs/security.md`).
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from service.rpc.identity.permissions import OWN_SUFFIX, permissions
from service.rpc.identity.policy import Policy

_TABLES = ("roles", "identities")
_MAX_FILE_BYTES = 1 << 20
_ROLE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# How the names of identities begin. The subject of a certificate has an equals sign instead (`CN=billing`).
_KINDS = ("spiffe://", "jwt:", "key:")


class PolicyError(Exception):
    """A policy file cannot be used. Each of `problems` is a line that names the file, the key and what is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def read_policy(file: Path) -> Policy:
    """Return the policy in a file.

    Raises:
        PolicyError: the file cannot be read, or is not a policy. The error lists everything that is wrong with it.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PolicyError([f"{file}: cannot be read: {error.strerror}"]) from error
    if len(data) > _MAX_FILE_BYTES:
        raise PolicyError([f"{file}: has more than {_MAX_FILE_BYTES} bytes"])
    try:
        content = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise PolicyError([f"{file}: is not UTF-8 text"]) from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([f"{file}: is not TOML: {error}"]) from error
    if problems := [f"{file}: {problem}" for problem in _problems(content)]:
        raise PolicyError(problems)
    return Policy(content["roles"], content["identities"])


def suspicions(policy: Policy) -> Iterator[str]:
    """Yield what is allowed in a policy, but is probably a mistake."""
    used = {role for grants in policy.identities.values() for role in grants.roles}
    for role in policy.roles:
        if role not in used:
            yield f"roles.{role}: no identity has this role"
    for name in policy.identities:
        begin = name.removesuffix("*")
        if "=" not in begin and not any(kind.startswith(begin) or begin.startswith(kind) for kind in _KINDS):
            yield f"identities.{_key(name)}: names of identities begin with {', '.join(_KINDS)} or are like CN=billing"
        elif name != begin and begin[-1:].isalnum():
            longer = f"{begin}2"
            yield f"identities.{_key(name)}: the prefix also matches {longer}, because it ends inside a word"


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    for key in content:
        if key not in _TABLES:
            yield f"{_key(key)}: is unknown{_similar(key, _TABLES)}; a policy has the tables {' and '.join(_TABLES)}"
    tables: list[Mapping[str, Any]] = []
    for key in _TABLES:
        table = content.get(key)
        if isinstance(table, dict) and table:
            tables.append(table)
        else:
            yield f"{key}: must be a table with at least one entry"
    if len(tables) == len(_TABLES):
        roles, identities = tables
        yield from _problems_of_roles(roles)
        yield from _problems_of_identities(identities, roles)


def _problems_of_roles(roles: Mapping[str, Any]) -> Iterator[str]:
    for role, names in roles.items():
        where = f"roles.{_key(role)}"
        if not _ROLE.fullmatch(role):
            yield f"{where}: the name of a role has 1 to 64 letters, digits, underscores and hyphens"
        yield from _problems_of_list(where, names, "permissions")
        for name in _texts(names):
            if problem := _problem_of_permission(name, names):
                yield f"{where}: {problem}"


def _problem_of_permission(name: str, names: Sequence[str]) -> str | None:
    known = permissions()
    limited = [f"{one}{OWN_SUFFIX}" for one, can_be_limited in known.items() if can_be_limited]
    base = name.removesuffix(OWN_SUFFIX)
    if base not in known:
        return (
            f"there is no permission {_key(name)}{_similar(name, [*known, *limited])}; permissions: {', '.join(known)}"
        )
    if name != base and name not in limited:
        return f"no method of {base} can be limited to one user; permissions that can: {', '.join(limited)}"
    if name != base and base in names:
        return f"{name} is a part of {base}, which the role has too; remove one of them"
    return None


def _problems_of_identities(identities: Mapping[str, Any], roles: Mapping[str, Any]) -> Iterator[str]:
    for name, names in identities.items():
        where = f"identities.{_key(name)}"
        if not name or _CONTROL.search(name):
            yield f"{where}: must be the name of an identity, or a prefix that ends with *"
        yield from _problems_of_list(where, names, "roles")
        for role in _texts(names):
            if role not in roles:
                yield f"{where}: there is no role {_key(role)}{_similar(role, roles)}; roles: {', '.join(roles)}"


def _problems_of_list(where: str, value: Any, what: str) -> Iterator[str]:  # noqa: ANN401 - TOML has many types
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        yield f'{where}: must be a list of {what}, such as ["a", "b"], or [] for none'
        return
    for index, name in enumerate(value):
        if name in value[:index]:
            yield f"{where}: {_key(name)} is listed twice"


def _texts(value: Any) -> list[str]:  # noqa: ANN401 - TOML has many types
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _similar(name: str, known: Iterable[str]) -> str:
    return "".join(f"; is it {one}?" for one in get_close_matches(name, list(known), 1))


def _key(name: str) -> str:
    """Return a key as TOML writes it."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return '"' + _CONTROL.sub("?", name).replace("\\", "\\\\").replace('"', '\\"') + '"'
