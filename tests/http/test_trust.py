"""Who calls over HTTP: credentials are passed on, and nothing else makes a caller known."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import httpx
import pytest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from service.server import Server, StartError
from tests.http.conftest import NO_TLS, Site, running_site
from tests.support.certificates import Authority, write_certificate, write_files
from tests.support.http_calls import CONNECT, ORDERS, UNARY, USERS, error_info, grpc_web_trailers
from tests.support.identities import TokenIssuer, write_issuers
from tests.support.logs import logged
from tests.support.policies import Guarded, guarded_server
from tests.support.waiting import eventually

GET_USER = f"{USERS}/GetUser"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is refused
READER = {"key:reader": ["users.read"], "key:desk": ["users.read:own", "act_for_users"]}


@asynccontextmanager
async def guarded_site(
    postgres_url: str, template_url: str, folder: Path, **settings: object
) -> AsyncIterator[tuple[Guarded, httpx.AsyncClient]]:
    async with (
        guarded_server(postgres_url, template_url, folder, READER, http_port=0, **settings) as guarded,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{guarded.server.http_port}", timeout=20, verify=NO_TLS) as http,
    ):
        yield guarded, http


async def test_only_a_credential_makes_a_caller_known(postgres_url: str, template_url: str, tmp_path: Path) -> None:
    async with guarded_site(postgres_url, template_url, tmp_path) as (guarded, http):
        key = {"x-api-key": guarded.key_of("reader")}
        # Neither the loopback address of the client, nor the socket behind the port, nor what a proxy would say.
        for headers in (
            {},
            {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"},
            {"x-forwarded-client-cert": "URI=spiffe://example.org/admin", "ssl-client-subject-dn": "CN=admin"},
            {"x-api-key": "wrong"},
            {"authorization": "Bearer wrong"},
            {**key, "authorization": "Bearer wrong"},
        ):
            refused = await http.post(GET_USER, json={"username": "nobody"}, headers=headers)
            assert (refused.status_code, error_info(refused.json())["reason"]) == (401, "UNAUTHENTICATED_CALLER")
        known = await http.post(GET_USER, json={"username": "nobody"}, headers=key)
        assert (known.status_code, error_info(known.json())["reason"]) == (404, "USER_NOT_FOUND")


async def test_what_a_caller_may_not_do_is_denied_in_every_protocol(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    async with guarded_site(postgres_url, template_url, tmp_path) as (guarded, http):
        key = {"x-api-key": guarded.key_of("reader")}
        plain = await http.post(f"{ORDERS}/ListOrders", json={}, headers=key)
        by_get = await http.get(f"{ORDERS}/ListOrders", headers=key)
        connect = await http.post(f"{ORDERS}/ListOrders", json={}, headers={**key, **CONNECT})
        stream = await http.post(f"{ORDERS}/WatchOrders", json={"now": True}, headers=key)
        for response in (plain, by_get, connect, stream):
            assert (response.status_code, error_info(response.json())["reason"]) == (403, "PERMISSION_MISSING")
        sent = UNARY["grpc-web"]
        request = sent.body(users_pb.GetUserRequest(username="nobody"))
        web = await http.post(f"{USERS}/DeleteUser", content=request, headers={**sent.headers, **key})
        assert grpc_web_trailers(web.content)["grpc-status"] == "7"


async def test_a_caller_can_act_for_a_user(postgres_url: str, template_url: str, tmp_path: Path) -> None:
    policy = {**READER, "key:admin": ["users.write"]}
    async with guarded_site(postgres_url, template_url, tmp_path) as (guarded, http):
        guarded.change_policy(policy)
        user = await (await guarded.clients_of("admin")).create_user()
        key = {"x-api-key": guarded.key_of("desk")}
        for headers, status in ((key, 403), ({**key, "x-on-behalf-of": user.id}, 200)):
            response = await http.post(GET_USER, json={"id": user.id}, headers=headers)
            assert response.status_code == status
        with logged() as log:
            acting = {**key, "x-on-behalf-of": user.id, "x-request-id": "acting"}
            await http.post(GET_USER, json={"id": user.id}, headers=acting)
            line = await log.line(event="call", x_request_id="acting")
        assert (line["caller"], line["on_behalf_of"]) == ("key:desk", user.id)


async def test_a_token_makes_a_caller_known(shared_database_url: str, tmp_path: Path) -> None:
    issuer = TokenIssuer()
    policy = tmp_path / "policy.toml"
    policy.write_text('[roles]\nreader = ["users.read"]\n[identities]\n"jwt:accounts:billing" = ["reader"]\n')
    async with running_site(
        shared_database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as site:
        name, token = issuer.bearer()
        response = await site.http.post(GET_USER, json={"username": "nobody"}, headers={name: token})
        assert response.status_code == 404, response.text


async def test_the_socket_behind_the_port_makes_nobody_known(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    async with guarded_site(postgres_url, template_url, tmp_path) as (guarded, _):
        assert guarded.server.http is not None
        path = guarded.server.http.socket
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            for metadata in ((), (("x-api-key", "wrong"),)):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await UserServiceStub(channel).GetUser(users_pb.GetUserRequest(username="ada"), metadata=metadata)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[2001:db8::1]:80", ""])
async def test_without_identities_only_requests_to_this_machine_are_answered(site: Site, host: str) -> None:
    response = await site.http.post(GET_USER, json={"username": "nobody"}, headers={"host": host})
    assert response.status_code == 421
    assert "only requests to localhost" in response.json()["message"]


@pytest.mark.parametrize("host", ["localhost", "localhost:50080", "127.0.0.1:1", "[::1]:50080"])
async def test_this_machine_has_several_names(site: Site, host: str) -> None:
    response = await site.http.post(GET_USER, json={"username": "nobody"}, headers={"host": host})
    assert response.status_code == 404


async def test_with_identities_any_name_is_answered(postgres_url: str, template_url: str, tmp_path: Path) -> None:
    async with guarded_site(postgres_url, template_url, tmp_path) as (guarded, http):
        headers = {"host": "shop.example.com", "x-api-key": guarded.key_of("reader")}
        assert (await http.post(GET_USER, json={"username": "nobody"}, headers=headers)).status_code == 404


async def test_with_identities_the_description_is_not_for_everybody(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    async with guarded_site(postgres_url, template_url, tmp_path) as (_, http):
        assert (await http.get("/openapi.json")).status_code == (await http.get("/docs")).status_code == 404
    async with guarded_site(postgres_url, template_url, tmp_path, reflection="on") as (_, http):
        assert (await http.get("/openapi.json")).status_code == (await http.get("/docs")).status_code == 200


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"http_host": EVERYWHERE}, "COMMERCE_HTTP_HOST=0.0.0.0 lets other machines in without TLS"),
        ({"http_host": EVERYWHERE, "allow_plaintext": True}, "without identities"),
        ({"http_cors_origins": "*"}, r"COMMERCE_HTTP_CORS_ORIGINS=\* lets every web page call without an identity"),
    ],
)
async def test_a_port_without_protection_is_not_opened(
    shared_database_url: str, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(StartError, match=problem):
        async with running_site(shared_database_url, **settings):
            pass


async def test_other_machines_are_let_in_if_settings_say_so(shared_database_url: str) -> None:
    async with running_site(
        shared_database_url, http_host=EVERYWHERE, allow_plaintext=True, allow_anonymous=True
    ) as site:
        response = await site.http.post(GET_USER, json={"username": "nobody"}, headers={"host": "shop.example.com"})
        assert response.status_code == 404


async def test_client_certificates_alone_make_nobody_known_over_http(shared_database_url: str, tmp_path: Path) -> None:
    files = write_files(tmp_path, Authority().server(), Authority().pem)
    tls = {"tls_certificate_file": files.certificate, "tls_key_file": files.key, "tls_client_ca_file": files.client_ca}
    with pytest.raises(StartError, match="COMMERCE_HTTP_PORT takes no client certificates"):
        async with running_site(shared_database_url, **tls):
            pass


@asynccontextmanager
async def https(server: Server, authority: Authority) -> AsyncIterator[httpx.AsyncClient]:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    async with httpx.AsyncClient(base_url=f"https://localhost:{server.http_port}", verify=context) as client:
        yield client


async def test_the_port_has_the_tls_of_grpc_and_reloads_it(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    first, second = Authority(), Authority()
    files = write_files(tmp_path, first.server(), Authority().pem)
    settings = {"tls_certificate_file": files.certificate, "tls_key_file": files.key, "tls_reload_interval": 0.05}
    async with guarded_server(
        postgres_url, template_url, tmp_path, READER, http_port=0, tls_client_ca_file=files.client_ca, **settings
    ) as guarded:
        # No client certificate is asked for, although gRPC's port wants one.
        headers = {"x-api-key": guarded.key_of("reader")}
        async with https(guarded.server, first) as client:
            response = await client.post(GET_USER, json={"username": "nobody"}, headers=headers)
            assert response.status_code == 404
        write_certificate(files, second.server())

        async def is_reloaded() -> bool:
            async with https(guarded.server, second) as client:
                try:
                    return (await client.post(GET_USER, json={}, headers=headers)).status_code == 400
                except httpx.ConnectError:
                    return False

        await eventually(is_reloaded)


async def test_a_client_that_does_not_finish_its_tls_handshake_is_disconnected(
    shared_database_url: str, tmp_path: Path
) -> None:
    files = write_files(tmp_path, Authority().server())
    async with running_site(
        shared_database_url, tls_certificate_file=files.certificate, tls_key_file=files.key, handshake_timeout=0.3
    ) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.http_port)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_the_state_of_the_server_is_for_who_may_read_all_orders(
    postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    settings = {"console": True, "metrics_port": 0}
    async with guarded_site(postgres_url, template_url, tmp_path, **settings) as (guarded, http):
        guarded.change_policy({**READER, "key:support": ["orders.read"], "key:own": ["orders.read:own"]})
        status = "/console/status.json"
        assert (await http.get(status)).status_code == 401
        assert (await http.get(status, headers={"x-api-key": "wrong"})).status_code == 401
        for name in ("reader", "own"):
            denied = await http.get(status, headers={"x-api-key": guarded.key_of(name)})
            assert (denied.status_code, error_info(denied.json())["reason"]) == (403, "PERMISSION_MISSING")
        key = {"x-api-key": guarded.key_of("support")}
        assert (await http.post(status, headers=key)).status_code == 405
        known = await http.get(status, headers=key)
        assert known.headers["cache-control"] == "no-store"
        state = known.json()
        assert state["pool"] == {"size": 10, "inUse": 0, "waiting": 0}
        assert state["running"] == 0
        assert len(state["durations"]["counts"]) == len(state["durations"]["bounds"]) + 1
