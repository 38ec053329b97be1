"""The policy: which identity has which roles, and which permissions a role has.

A policy is a TOML file of two tables:

    [roles]
    storefront = ["users.read", "orders.read", "orders.write", "act_for_users"]
    customer = ["users.read:own", "orders.read:own"]

    [identities]
    "spiffe://example.org/storefront" = ["storefront"]
    "jwt:accounts:*" = ["customer"]

A name that ends with `*` is a prefix. Of all names that match an identity, one applies: the exact name, otherwise the
longest prefix. An identity that no name matches, or whose list of roles is empty, may do nothing.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from service.rpc.identity.permissions import OWN_SUFFIX, permissions

# Callers whose grants are remembered. More are possible with a token for each end user; then all are forgotten, which
# costs each its next look-up.
MAX_REMEMBERED = 10_000
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


@dataclass(frozen=True, slots=True)
class Grants:
    """What an identity may do.

    Attributes:
        name: the name in the policy that applies; empty if none does.
        roles: the roles of that name.
        permissions: the permissions that are not limited.
        own: the permissions that are limited to what belongs to the user for whom the caller acts.
    """

    name: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    own: frozenset[str]


_NOTHING = Grants("", (), frozenset(), frozenset())


class Policy(dict[str, Grants]):
    """A mapping from identities to what they may do; what is found once is a look-up from then on.

    Args:
        roles: the permissions of each role.
        identities: the roles of each name; a name that ends with `*` is a prefix.
    """

    def __init__(self, roles: Mapping[str, Sequence[str]], identities: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.roles = dict(roles)
        self.identities = {name: self._grants(name, names) for name, names in identities.items()}
        self._prefixes = sorted((name[:-1] for name in identities if name.endswith("*")), key=len, reverse=True)

    def __missing__(self, identity: str) -> Grants:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        grants = self[identity] = self._find(identity)
        return grants

    def _find(self, identity: str) -> Grants:
        # The identity `a*` is not the prefix `a*`.
        if not identity.endswith("*") and (grants := self.identities.get(identity)):
            return grants
        for prefix in self._prefixes:
            if identity.startswith(prefix):
                return self.identities[f"{prefix}*"]
        return _NOTHING

    def _grants(self, name: str, roles: Sequence[str]) -> Grants:
        granted = {permission for role in roles for permission in self.roles[role]}
        own = frozenset(name.removesuffix(OWN_SUFFIX) for name in granted if name.endswith(OWN_SUFFIX))
        unlimited = frozenset(name for name in granted if not name.endswith(OWN_SUFFIX))
        return Grants(name, tuple(roles), unlimited, own - unlimited)

    def warnings(self) -> Iterator[str]:
        """Yield what is allowed in a policy, but is probably a mistake."""
        used = {role for grants in self.identities.values() for role in grants.roles}
        for role in self.roles:
            if role not in used:
                yield f"roles.{role}: no identity has this role"
        for name in self.identities:
            begin = name.removesuffix("*")
            if "=" not in begin and not any(kind.startswith(begin) or begin.startswith(kind) for kind in _KINDS):
                yield f"identities.{_key(name)}: identities begin with {', '.join(_KINDS)} or are like CN=billing"


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


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    for key in content.keys() - {"roles", "identities"}:
        yield f"{_key(key)}: is unknown{_similar(key, ('roles', 'identities'))}; a policy has [roles] and [identities]"
    for key in ("roles", "identities"):
        table = content.get(key)
        if not isinstance(table, dict) or not table:
            yield f"{key}: must be a table with at least one entry"
            return
    for role, names in content["roles"].items():
        where = f"roles.{_key(role)}"
        if not _ROLE.fullmatch(role):
            yield f"{where}: the name of a role has 1 to 64 letters, digits, underscores and hyphens"
        yield from _list_problems(where, names, "permissions")
        if _is_list(names):
            yield from _permission_problems(where, names)
    for name, roles in content["identities"].items():
        where = f"identities.{_key(name)}"
        if not name or _CONTROL.search(name):
            yield f"{where}: must be the name of an identity, or a prefix that ends with *"
        yield from _list_problems(where, roles, "roles")
        if _is_list(roles):
            for role in roles:
                if role not in content["roles"]:
                    similar = _similar(role, content["roles"])
                    yield f"{where}: there is no role {_key(role)}{similar}; roles: {', '.join(content['roles'])}"


def _permission_problems(where: str, names: Sequence[str]) -> Iterator[str]:
    known = permissions()
    for name in names:
        base = name.removesuffix(OWN_SUFFIX)
        if base not in known:
            spelled = [*known, *(f"{one}{OWN_SUFFIX}" for one, limited in known.items() if limited)]
            yield f"{where}: there is no permission {_key(name)}{_similar(name, spelled)}; permissions: {', '.join(known)}"
        elif name != base and not known[base]:
            limited = ", ".join(f"{one}{OWN_SUFFIX}" for one, can in known.items() if can)
            yield f"{where}: no method of {base} can be limited to one user, so there is no {name}; there are: {limited}"
        elif name != base and base in names:
            yield f"{where}: {name} is a part of {base}, which the role has too; remove one of them"


def _list_problems(where: str, value: object, what: str) -> Iterator[str]:
    if not _is_list(value):
        yield f"{where}: must be a list of {what}, for example []"
        return
    for index, name in enumerate(value):
        if name in value[:index]:
            yield f"{where}: {_key(name)} is listed twice"


def _is_list(value: Any) -> bool:  # noqa: ANN401 - TOML has many types
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _similar(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    return "".join(f"; is it {one}?" for one in get_close_matches(name, known, 1))


def _key(name: str) -> str:
    """Return a key as TOML writes it."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return '"' + _CONTROL.sub("?", name).replace("\\", "\\\\").replace('"', '\\"') + '"'
