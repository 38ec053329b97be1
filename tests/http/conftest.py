"""A server with an HTTP port, and clients of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from service.server import Server
from tests.support.clients import Clients, connect
from tests.support.servers import running_server


@dataclass(frozen=True)
class Site:
    """A server, and clients of both of its ports."""

    server: Server
    http: httpx.AsyncClient
    grpc: Clients

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.http_port}"


@pytest.fixture(scope="session")
async def site(shared_database_url: str) -> AsyncIterator[Site]:
    """A server that the tests of HTTP share: each test creates its own users and orders."""
    async with (
        running_server(shared_database_url, http_port=0, http_cors_origins="https://shop.example.com") as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=20) as http,
        connect(server.port) as grpc,
    ):
        yield Site(server, http, grpc)
