from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from trustme import CA

from service.rpc.identity.certificates import CertificateIdentities, Form
from tests.support.identities import client_certificate

ID = "spiffe://example.org/billing"


@dataclass
class NamingServer:
    """A server with TLS that answers with the name of the caller, empty for none."""

    port: int
    ca: CA
    now: float = 0.0
    certificates_read: int = 0

    async def name(self, **certificate: Any) -> str:
        """Return the name of a caller with a new certificate."""
        chain, key = client_certificate(self.ca, **certificate)
        return await self.call(grpc.ssl_channel_credentials(self.ca.cert_pem.bytes(), key, chain))

    async def call(self, credentials: grpc.ChannelCredentials) -> str:
        """Return the name of a caller."""
        async with grpc.aio.secure_channel(f"localhost:{self.port}", credentials) as channel:
            named: Any = channel.unary_unary("/test.Names/Name")
            # Twice, because the second answer may be remembered.
            names = {(await named(b"")).decode() for _ in range(2)}
        assert len(names) == 1
        return str(names.pop())


@asynccontextmanager
async def naming(form: Form, *, requires_certificate: bool = True) -> AsyncIterator[NamingServer]:
    ca = CA()
    own = ca.issue_cert("localhost")
    naming_server = NamingServer(0, ca)
    identities = CertificateIdentities(form, lambda: naming_server.now)

    class CountingConnection:
        def __init__(self, context: Any) -> None:
            self.peer, self.peer_identities = context.peer, context.peer_identities
            self._auth_context = context.auth_context

        def auth_context(self) -> Any:
            naming_server.certificates_read += 1
            return self._auth_context()

    async def name(_request: bytes, context: Any) -> bytes:
        found = identities.caller(CountingConnection(context))
        return found.name.encode() if found else b""

    server = grpc.aio.server()
    handlers: Any = {"Name": grpc.unary_unary_rpc_method_handler(name)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Names", handlers),))
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    root = ca.cert_pem.bytes() if requires_certificate else None
    credentials = grpc.ssl_server_credentials([(own.private_key_pem.bytes(), chain)], root, requires_certificate)
    naming_server.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield naming_server
    finally:
        await server.stop(None)


@pytest.mark.parametrize("form", ["spiffe", "common_name", "subject"])
async def test_a_spiffe_id_names_the_caller(form: Form) -> None:
    async with naming(form) as server:
        assert await server.name(uris=(ID,)) == ID
        assert await server.name(uris=(ID,), dns=("billing.example.com",)) == ID


@pytest.mark.parametrize(
    ("form", "name"), [("spiffe", ""), ("common_name", "CN=billing"), ("subject", "CN=billing,O=Example\\, Inc")]
)
async def test_without_a_spiffe_id_the_subject_can_name_the_caller(form: Form, name: str) -> None:
    async with naming(form) as server:
        assert await server.name() == name
        assert await server.name(dns=("billing.example.com",)) == name
        assert await server.name(uris=("https://billing.example.com/",)) == name


async def test_several_ids_are_none() -> None:
    async with naming("common_name") as server:
        assert await server.name(uris=(ID, "spiffe://example.org/admin")) == "CN=billing"
        assert await server.name(uris=(ID, "https://billing.example.com/")) == "CN=billing"


async def test_a_common_name_is_never_a_spiffe_id() -> None:
    async with naming("spiffe") as server:
        assert await server.name(uris=(ID,)) == ID
        # The only identity of this certificate, and the same text.
        assert await server.name(common_name=ID) == ""
    async with naming("common_name") as server:
        assert await server.name(common_name=ID) == f"CN={ID}"


async def test_a_name_does_not_end_at_a_nul() -> None:
    # It does in gRPC, so this certificate would be that of another caller.
    async with naming("common_name") as server:
        assert await server.name(uris=(ID,)) == ID
        assert await server.name(uris=(f"{ID}\0.evil",)) == ""


async def test_the_id_of_a_connection_is_remembered_for_a_second() -> None:
    async with naming("spiffe") as server:
        chain, key = client_certificate(server.ca, uris=(ID,))
        credentials = grpc.ssl_channel_credentials(server.ca.cert_pem.bytes(), key, chain)
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
            named: Any = channel.unary_unary("/test.Names/Name")
            assert [await named(b"") for _ in range(3)] == [ID.encode()] * 3
            assert server.certificates_read == 1
            server.now += 1
            assert await named(b"") == ID.encode()
            assert server.certificates_read == 2


async def test_the_subject_of_a_connection_is_read_in_each_call() -> None:
    async with naming("common_name") as server:
        chain, key = client_certificate(server.ca, dns=("shared.example.com",))
        credentials = grpc.ssl_channel_credentials(server.ca.cert_pem.bytes(), key, chain)
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
            named: Any = channel.unary_unary("/test.Names/Name")
            assert [await named(b"") for _ in range(3)] == [b"CN=billing"] * 3
            assert server.certificates_read == 3


async def test_certificates_with_the_same_alternative_names_can_be_different_callers() -> None:
    async with naming("common_name") as server:
        assert await server.name(common_name="one", dns=("shared.example.com",)) == "CN=one"
        assert await server.name(common_name="two", dns=("shared.example.com",)) == "CN=two"


@pytest.mark.parametrize("common_name", ["", "billing\nkey:admin", "billing\0", "billing\0.evil"])
async def test_a_subject_that_cannot_be_a_name_is_none(common_name: str) -> None:
    async with naming("common_name") as server:
        assert await server.name(common_name=common_name) == ""


@pytest.mark.parametrize("form", ["spiffe", "common_name", "subject"])
async def test_without_a_certificate_nobody_is_named(form: Form) -> None:
    async with naming(form, requires_certificate=False) as server:
        assert await server.call(grpc.ssl_channel_credentials(server.ca.cert_pem.bytes())) == ""
