"""HTTP/2 connections made of single frames, so that a test can send what no client would (RFC 9113, RFC 7541)."""

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER_BYTES = 9


def grpc_message(message: bytes, *, compressed: bool = False) -> bytes:
    """Return a message with gRPC's prefix: whether it is compressed, and its length."""
    return struct.pack(">BI", compressed, len(message)) + message


def call_headers(path: str, authority: str = "localhost", **more: str) -> list[tuple[str, str]]:
    """Return the header fields of a gRPC call; `more` are further ones, with underscores for hyphens."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]


def headers_frame(stream: int, header_block: bytes) -> bytes:
    """Return the frame that begins a call, with a header block that refers to no dynamic table."""
    return HeadersFrame(stream, header_block, flags=["END_HEADERS"]).serialize()


def call_frames(stream: int, header_block: bytes, message: bytes) -> bytes:
    """Return the frames of a unary call, with a header block that refers to no dynamic table."""
    data = DataFrame(stream, grpc_message(message), flags=["END_STREAM"])
    return headers_frame(stream, header_block) + data.serialize()


def static_block(headers: list[tuple[str, str]]) -> bytes:
    """Return a header block that changes no dynamic table, so that it can be sent any number of times."""
    return bytes(Encoder().encode([NeverIndexedHeaderTuple(*header) for header in headers]))


class Connection:
    """A connection to a server on this machine, after its preface and SETTINGS have been sent.

    Args:
        port: where the server listens.
        settings: the client's SETTINGS, by their identifiers.
        begins: whether to send them; otherwise nothing is sent before `begin`.

    Attributes:
        socket: the connection.
        received: how many frames of each type have been read.
        goaway: the last GOAWAY that has been read.
        next_stream: the id of the next stream of the client.
    """

    def __init__(self, port: int, settings: Mapping[int, int] | None = None, *, begins: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received: Counter[str] = Counter()
        self.goaway: GoAwayFrame | None = None
        self.next_stream = 1
        self._unread = b""
        self._begun = False
        if begins:
            self.begin(settings)

    def begin(self, settings: Mapping[int, int] | None = None) -> None:
        """Begin HTTP/2; raises OSError if the server has closed the connection."""
        self._begun = True
        self.send(PREFACE + SettingsFrame(settings=dict(settings or {})).serialize())

    def send(self, data: bytes) -> None:
        """Send bytes; raises OSError if the server has closed the connection, or reads nothing for five seconds."""
        self.socket.sendall(data)

    def take_stream(self) -> int:
        """Return the id of a new stream."""
        self.next_stream += 2
        return self.next_stream - 2

    def read(self, seconds: float = 0) -> list[Frame]:
        """Return the frames that have arrived, or that arrive first within some seconds; answers PING and SETTINGS.

        Raises:
            OSError: the server has closed the connection.
        """
        frames: list[Frame] = []
        until = time.monotonic() + seconds
        while not frames:
            self.socket.settimeout(max(until - time.monotonic(), 0))
            with suppress(BlockingIOError, TimeoutError):
                data = self.socket.recv(1 << 20)
                if not data:
                    raise ConnectionResetError("the server has closed the connection")
                self._unread += data
            self.socket.settimeout(5)
            frames = self._frames()
            if time.monotonic() >= until:
                break
        if self._begun:
            for frame in frames:
                self._answer(frame)
        return frames

    def is_closed(self) -> bool:
        """Read what has arrived, and return whether the server has closed the connection."""
        try:
            while self.read():
                pass
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _frames(self) -> list[Frame]:
        frames = []
        while len(self._unread) >= _FRAME_HEADER_BYTES:
            frame, length = Frame.parse_frame_header(memoryview(self._unread)[:_FRAME_HEADER_BYTES])
            end = _FRAME_HEADER_BYTES + length
            if len(self._unread) < end:
                break
            frame.parse_body(memoryview(self._unread)[_FRAME_HEADER_BYTES:end])
            self._unread = self._unread[end:]
            frames.append(frame)
            self.received[type(frame).__name__.removesuffix("Frame")] += 1
        return frames

    def _answer(self, frame: Frame) -> None:
        if isinstance(frame, GoAwayFrame):
            self.goaway = frame
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.send(PingFrame(0, frame.serialize_body(), flags=["ACK"]).serialize())
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.send(SettingsFrame(flags=["ACK"]).serialize())


@contextmanager
def connections(port: int, count: int, *, begins: bool = True) -> Iterator[list[Connection]]:
    """Open connections, and close them after the block."""
    opened: list[Connection] = []
    try:
        opened.extend(Connection(port, begins=begins) for _ in range(count))
        yield opened
    finally:
        for connection in opened:
            connection.close()
