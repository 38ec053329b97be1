"""What stands in the way of calls, arranged by tests: locks, triggers, and a connection to PostgreSQL that breaks."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from service.db.connections.engine import async_url


class Relay:
    """A TCP port whose connections lead to where `connect` says."""

    def __init__(self, connect: Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        # Whether the connections that break are reset, as those to a machine that has gone, instead of closed.
        self.resets = False

    async def listen(self) -> None:
        """Accept connections, always on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close_port(self) -> None:
        """Accept no more connections."""
        if self._server:
            self._server.close()

    async def refuse(self) -> None:
        """Break all connections and accept none."""
        self.close_port()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def there(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bring what the caller sends to the other side."""
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bring what the other side sends to the caller."""
        await Relay.there(self, reader, writer)

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection
        self._connections.add(connection)
        # Cancelled by `refuse`; asyncio would log a cancelled connection as an error. The rest is a broken connection.
        with suppress(asyncio.CancelledError, OSError):
            await self._relay(reader, writer)
        self._connections.discard(connection)
        if self.resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        other_reader, other_writer = await self._connect()
        ways = [
            asyncio.create_task(self.there(reader, other_writer)),
            asyncio.create_task(self.back(other_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            other_writer.transport.abort()


COMMIT = b"COMMIT;"


class Proxy(Relay):
    """A TCP port that leads to PostgreSQL, until it is told otherwise."""

    def __init__(self, url: str) -> None:
        super().__init__(self._open)
        self._upstream = async_url(url)
        # What of a message to lose the answer to, with its connection, once; and whether to take no other then.
        self.lose_answer_to: bytes | None = None
        self.close_after_loss = False
        # Whether the connections that PostgreSQL ends stay open on this side.
        self.keeps_open = False
        self._losing = False

    @property
    def url(self) -> str:
        """URL of the database by way of this port."""
        through = self._upstream.set(host="127.0.0.1", port=self.port, query={})
        return through.render_as_string(hide_password=False)

    async def there(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bring the service's messages to PostgreSQL."""
        while data := await reader.read(65536):
            if self.lose_answer_to and self.lose_answer_to in data:
                self.lose_answer_to, self._losing = None, True
            writer.write(data)
            await writer.drain()

    async def back(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bring PostgreSQL's answers to the service."""
        while data := await reader.read(65536):
            if self._losing:
                # What came is the answer: it has happened. (PostgreSQL sends it as a whole, after a commit.)
                self._losing = False
                if self.close_after_loss:
                    self.close_port()
                return
            writer.write(data)
            await writer.drain()
        if self.keeps_open:
            # Until this side ends it.
            await asyncio.Event().wait()

    async def _open(self) -> tuple[StreamReader, StreamWriter]:
        host = str(self._upstream.host or self._upstream.query.get("host"))
        port = self._upstream.port or int(str(self._upstream.query.get("port", 5432)))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


RelayT = TypeVar("RelayT", bound=Relay)


@asynccontextmanager
async def listening(relay: RelayT) -> AsyncIterator[RelayT]:
    """Open the relay's port until the block ends."""
    await relay.listen()
    try:
        yield relay
    finally:
        await relay.refuse()


def proxy_to(url: str) -> AbstractAsyncContextManager[Proxy]:
    """Open a port that leads to the database until told otherwise."""
    return listening(Proxy(url))
