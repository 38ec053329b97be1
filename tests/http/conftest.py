"""A server with an HTTP port, and clients of it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from service.http.port import HttpPort
from service.server import Server
from tests.support.clients import Clients, connect
from tests.support.servers import running_server

# httpx loads all CAs for each client, which takes longer than most tests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class Site:
    """A server, and clients of both of its ports."""

    server: Server
    http: httpx.AsyncClient
    grpc: Clients

    @property
    def port(self) -> HttpPort:
        assert self.server.http is not None
        return self.server.http


@asynccontextmanager
async def running_site(database_url: str, **settings: object) -> AsyncIterator[Site]:
    """Run a server with an HTTP port until the block ends."""
    async with (
        running_server(database_url, **{"http_port": 0, **settings}) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=20, verify=NO_TLS) as http,
        connect(server.port) as grpc,
    ):
        yield Site(server, http, grpc)


@pytest.fixture(scope="session")
async def site(shared_database_url: str) -> AsyncIterator[Site]:
    """A server that the tests of HTTP share: each test creates its own users and orders."""
    async with running_site(shared_database_url) as site:
        yield site
