"""The policy: which identity has which roles, and which permissions a role has.

A name of identities that ends with `*` is a prefix. Of all names that match an identity, one applies: the exact name,
otherwise the longest prefix. An identity that no name matches, or that has no roles, may do nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.rpc.identity.permissions import OWN_SUFFIX

# Callers whose grants are remembered. More are possible with a token for each end user; then all are forgotten, which
# costs each its next look-up.
MAX_REMEMBERED = 10_000


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
