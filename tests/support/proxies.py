"""TCP proxies in front of PostgreSQL, which break connections when a test says so."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from service.db.connections.engine import async_url
from tests.support.lost_packets import deliver_packets, drop_packets


class Forwarder:
    """A TCP port that forwards each connection to the one that `connect` opens."""

    def __init__(self, connect: Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        # Whether broken connections are reset, as if the other machine had crashed, instead of closed.
        self.resets = False
        # Where to forward to; what is to be sent to those that are silent is discarded.
        self._writers: set[StreamWriter] = set()
        # Those to the clients.
        self._accepted: set[StreamWriter] = set()
        self._silent: set[StreamWriter] = set()
        self._silences_new = False

    async def listen(self) -> None:
        """Accept connections; after `refuse`, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close_port(self) -> None:
        """Stop accepting connections."""
        if self._server:
            self._server.close()

    async def refuse(self) -> None:
        """Break all connections, and stop accepting new ones."""
        self.close_port()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def fall_silent(self, *, new_too: bool = False) -> None:
        """Forward nothing any more on the open connections, which stay open: their packets are still acknowledged.

        Args:
            new_too: whether new connections are accepted and get no answer either, until this is called again.
        """
        self._silent |= self._writers
        self._silences_new = new_too

    def black_hole(self, *, new_too: bool = False) -> None:
        """Drop all packets that arrive on the open connections: unlike by `fall_silent`, none is acknowledged.

        Args:
            new_too: whether those that open a connection are dropped, too, until `serve_new`.
        """
        # A connection of which everything is dropped also has nothing to send: what the other side sends is discarded.
        self.fall_silent(new_too=new_too)
        for writer in self._accepted:
            drop_packets(writer.get_extra_info("socket"))
        if new_too and self._server:
            drop_packets(self._server.sockets[0])

    def serve_new(self) -> None:
        """Serve new connections again. Those that were open stay as they are, as if a firewall had forgotten them."""
        self._silences_new = False
        # The port has no filter after `fall_silent`.
        with suppress(FileNotFoundError):
            if self._server:
                deliver_packets(self._server.sockets[0])

    async def send(self, data: bytes, writer: StreamWriter) -> None:
        """Forward these bytes, unless the connection is silent."""
        if writer not in self._silent:
            writer.write(data)
            await writer.drain()

    async def there(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward what the client sends to the other side."""
        while data := await reader.read(65536):
            await self.send(data, writer)

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward what the other side sends to the client."""
        await Forwarder.there(self, reader, writer)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        if not (self._server and self._server.is_serving()):
            # It was accepted while the port was closed.
            writer.transport.abort()
            return
        connection = asyncio.create_task(self._relay(reader, writer))
        # Here, so that `refuse` also breaks a connection whose task has not begun.
        self._connections.add(connection)
        connection.add_done_callback(partial(self._end, writer))

    def _end(self, writer: StreamWriter, connection: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        if self.resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        # `refuse` cancels it; an OSError means that the connection broke.
        with suppress(asyncio.CancelledError, OSError):
            connection.result()

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        other_reader, other_writer = await self._connect()
        ways = [
            asyncio.create_task(self.there(reader, other_writer)),
            asyncio.create_task(self.back(other_reader, writer)),
        ]
        both = {writer, other_writer}
        self._writers |= both
        self._accepted.add(writer)
        if self._silences_new:
            self._silent |= both
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= both
            self._accepted.discard(writer)
            self._silent -= both
            # First, because `refuse` can cancel the wait for the tasks.
            other_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


COMMIT = b"COMMIT;"


class Proxy(Forwarder):
    """A TCP port that forwards connections to PostgreSQL, and can be told to lose answers."""

    def __init__(self, url: str) -> None:
        super().__init__(self._open)
        self._upstream = async_url(url)
        # The answer to the next message that contains these bytes is lost, and its connection closed, once;
        # `close_after_loss` then refuses new connections too.
        self.lose_answer_to: bytes | None = None
        self.close_after_loss = False
        # Whether connections that PostgreSQL has closed stay open on the service's side.
        self.keeps_open = False
        self._losing = False

    @property
    def url(self) -> str:
        """URL of the database behind this port."""
        through = self._upstream.set(host="127.0.0.1", port=self.port, query={})
        return through.render_as_string(hide_password=False)

    async def there(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward the service's messages to PostgreSQL."""
        while data := await reader.read(65536):
            if self.lose_answer_to and self.lose_answer_to in data:
                self.lose_answer_to, self._losing = None, True
            await self.send(data, writer)

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward PostgreSQL's answers to the service."""
        while data := await reader.read(65536):
            if self._losing:
                # The statement has been executed. (PostgreSQL sends the answer as a whole, after a commit.)
                self._losing = False
                if self.close_after_loss:
                    self.close_port()
                return
            await self.send(data, writer)
        if self.keeps_open:
            # Until the service closes it.
            await asyncio.Event().wait()

    async def _open(self) -> tuple[StreamReader, StreamWriter]:
        host = str(self._upstream.host or self._upstream.query.get("host"))
        port = self._upstream.port or int(str(self._upstream.query.get("port", 5432)))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


ForwarderT = TypeVar("ForwarderT", bound=Forwarder)


@asynccontextmanager
async def listening(forwarder: ForwarderT) -> AsyncIterator[ForwarderT]:
    """Accept connections until the block ends."""
    await forwarder.listen()
    try:
        yield forwarder
    finally:
        await forwarder.refuse()


def proxy_to(url: str) -> AbstractAsyncContextManager[Proxy]:
    """Open a port that forwards connections to the database."""
    return listening(Proxy(url))
