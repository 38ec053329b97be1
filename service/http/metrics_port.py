"""The port for metrics, which one process of a service has: the server, the parent of workers, or a relay."""

import asyncio
from functools import partial
from typing import Any

import structlog
from uvicorn.server import ServerState

from service.config import MetricsSettings
from service.http.local_hosts import is_loopback, names_this_machine
from service.http.protocol import BoundedProtocol, configuration
from service.observability.logs import where_raised
from service.observability.metrics.page import PageWriter, content_type

PATH = "/metrics"
# Prometheus keeps its connection, and there are few such programs.
_MAX_CONNECTIONS = 16
_TRANSFER_SECONDS = 5.0
# Longer than the usual times between two scrapes.
_KEEP_ALIVE_SECONDS = 150
_TEXT = "text/plain; charset=utf-8"

log = structlog.get_logger()


class MetricsPort:
    """Serves the page of metrics from `listen` to `close`.

    Connections are few, and each has time limits, so a client that neither sends nor reads takes nothing from others
    for long.

    Args:
        settings: where to listen.
        writer: writes the page.

    Attributes:
        port: the TCP port, once it listens.
    """

    def __init__(self, settings: MetricsSettings, writer: PageWriter) -> None:
        self._settings = settings
        self._writer = writer
        # With a name that it lets point to this machine (DNS rebinding), a web page could read what is here.
        self._only_local_hosts = is_loopback(settings.metrics_host)
        self.port = 0
        self._config = configuration(self._answer, keep_alive_seconds=_KEEP_ALIVE_SECONDS)
        self._state = ServerState()
        self._listener: asyncio.Server | None = None

    async def listen(self) -> None:
        """Listen; raises OSError if the port is in use, or this machine does not have the address."""
        protocol = partial(
            BoundedProtocol,
            self._config,
            self._state,
            max_connections=_MAX_CONNECTIONS,
            transfer_timeout=_TRANSFER_SECONDS,
            is_leaving=lambda: False,
        )
        settings = self._settings
        self._listener = await asyncio.get_running_loop().create_server(
            protocol, settings.metrics_host, settings.metrics_port
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._listener:
            self._listener.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, scope: Any, _receive: object, send: Any) -> None:  # noqa: ANN401 - as ASGI passes them
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        status, kind, body = 200, _TEXT, b""
        more: list[tuple[bytes, bytes]] = []
        if self._only_local_hosts and not names_this_machine(headers.get(b"host", "")):
            status, body = 421, b"only requests to localhost are answered, not to other names\n"
        elif scope["path"] != PATH:
            status, body = 404, b"the metrics are at /metrics\n"
        elif scope["method"] not in {"GET", "HEAD"}:
            status, body = 405, b"the page allows GET\n"
            more.append((b"allow", b"GET, HEAD"))
        else:
            accept = headers.get(b"accept", "")
            try:
                kind, body = content_type(accept), await self._writer.page(accept)
            except Exception as error:  # noqa: BLE001 - answered without a cause, which only the log has
                log.error("the metrics could not be written", **where_raised(error))  # noqa: TRY400 - it says where
                status, kind, body = 500, _TEXT, b"the metrics could not be written\n"
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                *more,
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})
