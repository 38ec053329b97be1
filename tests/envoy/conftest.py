"""Envoy with the configuration of deploy/envoy and its TLS options, in front of a service with a policy."""

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.certificates import Authority, write_files
from tests.support.envoys import running_envoy
from tests.support.identities import TokenIssuer, write_issuers
from tests.support.passwords import PASSWORD
from tests.support.policies import EVERYTHING, EVERYTHING_OWN, Guarded, guarded_server
from tests.support.processes import Process

POLICY = {"jwt:accounts:billing": EVERYTHING, "jwt:accounts:desk": EVERYTHING_OWN}
ROCKET = {"productId": "r7", "name": "Rocket", "quantity": 2, "unitPrice": {"currencyCode": "EUR", "units": "9"}}


@dataclass(frozen=True)
class Rest:
    """Envoy in front of a server, and a client of it that has a token."""

    http: httpx.AsyncClient
    envoy: Process
    guarded: Guarded
    issuer: TokenIssuer
    ca: bytes
    ports: Mapping[str, int]

    async def get(self, path: str, **arguments: Any) -> httpx.Response:
        return await self.http.get(path, **arguments)

    async def post(self, path: str, body: object = None, **arguments: Any) -> httpx.Response:
        return await self.http.post(path, json=body if body is not None else {}, **arguments)

    async def new_user(self) -> dict[str, Any]:
        name = f"u{uuid4().hex[:20]}"
        user = {"email": f"{name}+shop@example.com", "username": name, "fullName": "Ada Lovelace"}
        created = await self.post("/v1/users", {"user": user, "password": PASSWORD})
        assert created.status_code == 200, created.text
        found: dict[str, Any] = created.json()["user"]
        return found

    async def new_order(self, user_id: str, **fields: object) -> dict[str, Any]:
        created = await self.post("/v1/orders", {"userId": user_id, "items": [ROCKET], **fields})
        assert created.status_code == 200, created.text
        found: dict[str, Any] = created.json()["order"]
        return found


@pytest.fixture(scope="module")
async def rest(postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rest]:
    """A service with TLS and a policy behind Envoy, which has TLS in both directions."""
    folder = tmp_path_factory.mktemp("envoy")
    authority, issuer = Authority(), TokenIssuer()
    files = write_files(folder, authority.server())
    (folder / "service-ca.crt").write_bytes(authority.pem)
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    identities = {"jwt_issuers_file": write_issuers(folder, issuer)}
    tls = {"tls_certificate_file": files.certificate, "tls_key_file": files.key}
    token = dict([issuer.bearer()])
    async with (
        guarded_server(postgres_url, template_url, folder, POLICY, **identities, **tls) as guarded,
        httpx.AsyncClient(headers=token, timeout=20, verify=trust) as http,
        running_envoy(folder, guarded.server.port, http, tls=True) as (envoy, url),
    ):
        http.base_url = httpx.URL(url)
        assert http.base_url.port is not None
        yield Rest(http, envoy, guarded, issuer, authority.pem, {"envoy": http.base_url.port})
