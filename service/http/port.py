"""The HTTP port of a server: listens, and drains with it."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from uvicorn.server import ServerState

from service.config import HttpServerSettings
from service.http.application import Application
from service.http.bridge import Bridge
from service.http.connect import Connect
from service.http.console import console_pages
from service.http.conversion import Conversion
from service.http.cors import Cors
from service.http.exchange import Limits
from service.http.memory import Memory
from service.http.methods import methods_of
from service.http.pages import Page, pages
from service.http.plain import PlainJson
from service.http.protocol import BoundedProtocol, configuration
from service.http.status import StatusPage
from service.http.tls import Certificates, server_context

# How often a port that stops looks whether its responses have been sent.
_CHECK_SECONDS = 0.02


class HttpPort:
    """Serves HTTP from `listen` to `close`.

    Args:
        settings: the settings.
        services: the full names of the services.
        certificates: the certificates of TLS; None without TLS.
        folder: for the Unix socket; `close` removes it.
        grpc_port: the TCP port for gRPC; 0 without one.
        status: the state of the server for the console; None if it is not served.
        open_pages: whether everybody may read the description of the services.

    Attributes:
        socket: the Unix socket on which the gRPC server must listen for this port, in a folder that only this user
            can enter.
        port: the TCP port, once it listens.
        requests: the bodies of requests in memory.
        responses: the responses in memory that clients have not read.

    Raises:
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        settings: HttpServerSettings,
        services: Collection[str],
        certificates: Certificates | None,
        folder: Path,
        grpc_port: int,
        *,
        status: StatusPage | None,
        open_pages: bool,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self.socket = folder / "grpc"
        self.port = 0
        self._tls = None
        if certificates and settings.tls_certificate_file and settings.tls_key_file:
            self._tls = server_context(settings.tls_certificate_file, settings.tls_key_file, certificates)
        self.requests = Memory(settings.max_request_bytes_in_flight)
        self.responses = Memory(settings.max_unread_response_bytes)
        self._conversion = Conversion()
        self._bridge = Bridge(self.socket, settings.max_response_bytes)
        self._config = configuration(
            self._application(services, grpc_port, status, open_pages=open_pages),
            keep_alive_seconds=round(settings.http_keep_alive_timeout),
        )
        self._state = ServerState()
        self._leaving = False
        self._listener: asyncio.Server | None = None

    def _application(
        self, services: Collection[str], grpc_port: int, status: StatusPage | None, *, open_pages: bool
    ) -> Application:
        settings = self._settings
        methods = methods_of(services)
        for method in methods.values():
            self._bridge.add(method)
        return Application(
            methods,
            PlainJson(self._bridge, self._conversion, self.responses),
            Connect(methods, self._bridge, self._conversion, self.responses, settings.http_max_request_bytes),
            Cors(settings.cors_origins),
            {**(pages() if open_pages else {}), **(self._console(grpc_port) if settings.console else {})},
            status if settings.console else None,
            Limits(self.requests, settings.http_max_request_bytes, settings.transfer_timeout),
            only_local_hosts=not (settings.has_identities or settings.allow_anonymous),
        )

    def _console(self, grpc_port: int) -> Mapping[str, Page]:
        return console_pages(grpc_port, tls=self._tls is not None)

    async def listen(self) -> None:
        """Listen; raises OSError if the port is in use, or this machine does not have the address."""
        settings = self._settings
        protocol = partial(
            BoundedProtocol,
            self._config,
            self._state,
            max_connections=settings.http_max_connections,
            transfer_timeout=settings.transfer_timeout,
            is_leaving=lambda: self._leaving,
        )
        self._listener = await asyncio.get_running_loop().create_server(
            protocol,
            settings.http_host,
            settings.http_port,
            reuse_port=settings.reuse_port or None,
            ssl=self._tls,
            ssl_handshake_timeout=settings.handshake_timeout if self._tls else None,
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def leave(self) -> None:
        """Stop listening, so that clients connect to other servers; each connection is closed after its response."""
        self._leaving = True
        if self._listener:
            self._listener.close()

    def open_connections(self) -> int:
        """Return how many connections are open."""
        return len(self._state.connections)

    def finish(self) -> None:
        """Accept no more requests; those that run go on. Connections without a request are closed."""
        self.leave()
        for connection in list(self._state.connections):
            # All of them are of this class.
            assert isinstance(connection, BoundedProtocol)  # noqa: S101 - for the type checker
            connection.shutdown_if_idle()

    async def until_finished(self, seconds: float) -> None:
        """Wait until all requests have been answered, or for some seconds."""
        give_up = time.monotonic() + seconds
        # uvicorn reports no end of a connection.
        while (self._state.connections or self._state.tasks) and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(_CHECK_SECONDS)

    async def close(self) -> None:
        """Close all connections, also those with a request that runs."""
        self.finish()
        for connection in list(self._state.connections):
            connection.transport.abort()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._bridge.close()
        self._conversion.close()
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, self._folder)
