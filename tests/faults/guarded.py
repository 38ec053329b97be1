"""A server that knows its callers, with callers of every kind, right and wrong."""

import base64
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
from commerce.common.v1.authorization_pb2 import Authorization, authorization
from cryptography.hazmat.primitives import serialization
from google.protobuf.descriptor import MethodDescriptor

from tests.support.identities import TokenIssuer, write_keys
from tests.support.methods import ALL_METHODS

Metadata = Sequence[tuple[str, str]]


def declared(method: MethodDescriptor) -> Authorization:
    """Return what a method declares in its proto."""
    found: Authorization = method.GetOptions().Extensions[authorization]
    return found


# All permissions of methods, and those that can be limited to one user.
PERMISSIONS = sorted({declared(method).permission for method in ALL_METHODS.values()})
LIMITABLE = sorted({declared(method).permission for method in ALL_METHODS.values() if declared(method).HasField("own")})


class Guarded:
    """The files that tell a server its callers, and what they may do, and the credentials of callers.

    Services have tokens whose subject is a role: `all`, `nothing`, for each permission `only-…` and `all-but-…`. End
    users have tokens of another issuer, and all permissions limited to what is their own.

    Args:
        folder: where to write the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.services = TokenIssuer("services", algorithm="RS256")
        self.users = TokenIssuer("users")
        (self._key,) = write_keys(folder / "keys.toml", "admin")
        self.publish_keys()
        tables = (self.services.table("services.json"), self.users.table("users.json", subjects="users"))
        (folder / "issuers.toml").write_text("\n".join(tables))
        self.write_policy()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the server."""
        return {
            "api_keys_file": self._folder / "keys.toml",
            "jwt_issuers_file": self._folder / "issuers.toml",
            "policy_file": self._folder / "policy.toml",
        }

    @property
    def admin(self) -> Metadata:
        """The credential of a caller who may do everything."""
        return [("x-api-key", self._key)]

    def publish_keys(self) -> None:
        """Write the public keys of the issuers."""
        for issuer in (self.services, self.users):
            _replace(self._folder / f"{issuer.name}.json", issuer.jwks())

    def write_policy(self, **more: Iterable[str]) -> None:
        """Write the policy; `more` has the permissions of further roles of services."""
        roles: dict[str, Iterable[str]] = {"all": PERMISSIONS, "nothing": [], **more}
        for permission in PERMISSIONS:
            name = permission.replace(".", "-")
            roles[f"only-{name}"] = [permission]
            roles[f"all-but-{name}"] = [one for one in PERMISSIONS if one != permission]
        roles["end-user"] = [f"{permission}:own" for permission in LIMITABLE]
        lines = ["[roles]", *(f"{name} = {json.dumps([*allowed])}" for name, allowed in roles.items()), "[identities]"]
        lines += [f'"jwt:services:{name}" = ["{name}"]' for name in roles]
        lines += ['"jwt:users:*" = ["end-user"]', '"key:admin" = ["all"]']
        _replace(self._folder / "policy.toml", "\n".join(lines) + "\n")

    def service(self, role: str, **claims: Any) -> Metadata:
        """Return the credential of a service with this role; other claims can make its token invalid."""
        return [self.services.bearer(sub=role, **claims)]

    def user(self, user_id: str) -> Metadata:
        """Return the credential of an end user."""
        return [self.users.bearer(sub=user_id)]

    def refused(self) -> Mapping[str, Metadata]:
        """Return credentials that must be refused, by what is wrong; if it were not, their callers might do all."""
        now = int(time.time())
        stranger = TokenIssuer("services", algorithm="RS256")
        key, _ = self.services.keys["key-1"]
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        claims = self.services.claims(sub="all")
        return {
            "none": [],
            "wrong API key": [("x-api-key", self._key[:-1] + ("a" if self._key[-1] != "a" else "b"))],
            "API key as a token": [("authorization", f"Bearer {self._key}")],
            "wrong API key beside a token": [("x-api-key", "commerce_wrong"), *self.service("all")],
            "wrong token beside an API key": [*self.admin, ("authorization", "Bearer a.b.c")],
            "key of another issuer": [stranger.bearer(sub="all")],
            "expired": self.service("all", exp=now - 90),
            "without exp": self.service("all", exp=None),
            "not valid yet": self.service("all", nbf=now + 120),
            "issued in the future": self.service("all", iat=now + 120),
            "wrong issuer": self.service("all", iss="https://evil.example.com"),
            "issuer of users": self.service("all", iss=self.users.issuer),
            "wrong audience": self.service("all", aud="another"),
            "two wrong audiences": self.service("all", aud=["another", "commerce2"]),
            "without audience": self.service("all", aud=None),
            "alg none": [_bearer({"alg": "none", "kid": "key-1"}, claims, b"")],
            "alg None": [_bearer({"alg": "None", "kid": "key-1"}, claims, b"")],
            "HS256 with the public key": [_signed_with_secret(claims, public)],
            "unknown kid": [self.services_token({"kid": "key-2"})],
            "path as kid": [self.services_token({"kid": "../../../../dev/null"})],
            "SQL as kid": [self.services_token({"kid": "key-1' OR '1'='1"})],
            "its own key in the header": [_with_its_key(stranger, claims)],
            "critical header": [self.services_token({"crit": ["exp"]})],
            "user who is no UUID": [self.users.bearer(sub="all")],
        }

    def services_token(self, header: Mapping[str, Any]) -> tuple[str, str]:
        """Return the credential of a service that may do everything, with further members in the token's header."""
        return "authorization", f"Bearer {self.services.token(header, sub='all')}"


def _with_its_key(stranger: TokenIssuer, claims: Mapping[str, Any]) -> tuple[str, str]:
    """Return a token that brings the key to verify it with."""
    key, algorithm = stranger.keys["key-1"]
    public = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
    token = jwt.encode(dict(claims), key, algorithm, {"kid": "key-1", "jwk": public})
    return "authorization", f"Bearer {token}"


def _signed_with_secret(claims: Mapping[str, Any], secret: bytes) -> tuple[str, str]:
    # PyJWT refuses to sign with a public key.
    hmac = jwt.get_algorithm_by_name("HS256")
    header = {"alg": "HS256", "kid": "key-1"}
    return _bearer(header, claims, hmac.sign(f"{_part(header)}.{_part(claims)}".encode(), secret))


def _bearer(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes) -> tuple[str, str]:
    return "authorization", f"Bearer {_part(header)}.{_part(claims)}.{_encoded(signature)}"


def _part(content: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(content).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole, as programs that rotate it should."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
