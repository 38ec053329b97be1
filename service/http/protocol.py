"""HTTP/1.1 on one connection, as uvicorn speaks it, with limits for clients that neither send nor read."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    import asyncio

# What uvicorn calls for each request.
ASGIApplication = Callable[..., Any]

# Of the line and the headers of a request, as for gRPC's metadata.
MAX_HEADER_BYTES = 16 * 1024


def configuration(application: ASGIApplication, *, keep_alive_seconds: int) -> Config:
    """Return uvicorn's configuration for a port, and keep its own lines out of the log.

    It would log a line for each request that is not HTTP, and the texts of exceptions.

    Args:
        application: answers the requests.
        keep_alive_seconds: how long a connection may be idle between two requests.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    config = Config(
        application,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive_seconds,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    config.load()
    return config


class BoundedProtocol(H11Protocol):
    """One connection.

    uvicorn waits forever for the rest of a request, and for a client that does not read the rest of a response. Here,
    each may take `transfer_timeout` seconds; then the connection is aborted. (Before its last part, the application
    waits for the client.)

    Args:
        config: the configuration of uvicorn.
        state: what all connections share.
        max_connections: how many there may be; further ones are closed.
        transfer_timeout: see above.
        is_leaving: whether responses should be the last of their connections.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        *,
        max_connections: int,
        transfer_timeout: float,
        is_leaving: Callable[[], bool],
    ) -> None:
        # What the application may ask of the connection, in the scope of each request.
        asked = {"abort": self.abort, "close": self.close_after_response, "is_leaving": is_leaving}
        super().__init__(config, state, asked)
        self._max_connections = max_connections
        self._transfer_timeout = transfer_timeout
        self._receiving: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn narrows it
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()
            return
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_receiving()
        if self._writing:
            self._writing.cancel()
        super().connection_lost(exc)
        # uvicorn keeps its timer if the connection broke.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, and for the client to read the rest of the response."""
        super().on_response_complete()
        self._wait_for_request(idle=True)
        if self.transport.get_write_buffer_size() and self._writing is None:
            # Otherwise, a connection that is closed stays until the rest has been read.
            self._writing = self.loop.call_later(self._transfer_timeout, self._abort_unless_read)

    def _wait_for_request(self, *, idle: bool = False) -> None:
        """Run the timer while a request is incomplete; before the first byte of the next one, uvicorn's runs."""
        state = self.conn.their_state
        incomplete = state is h11.SEND_BODY or (state is h11.IDLE and not idle)
        if not incomplete or self.transport.is_closing():
            self._stop_receiving()
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self._transfer_timeout, self.abort)

    def _abort_unless_read(self) -> None:
        self._writing = None
        if self.transport.get_write_buffer_size():
            self.abort()

    def shutdown_if_idle(self) -> None:
        """Close the connection if no request is running on it; else after its response."""
        if not self.transport.is_closing():
            self.shutdown()

    def close_after_response(self) -> None:
        """Close the connection when the response that is running has been sent as far as it was written."""
        if not self.cycle.response_complete:
            self.transport.close()

    def abort(self) -> None:
        """Close the connection, and drop what the client has not read."""
        self.transport.abort()

    def _stop_receiving(self) -> None:
        if self._receiving:
            self._receiving.cancel()
            self._receiving = None
