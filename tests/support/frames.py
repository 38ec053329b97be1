"""A client that sends HTTP/2 frames of its own, to break the protocol or to use it up (RFC 9113, RFC 7541)."""

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL = b"\0\0\0\x08"
# No response fits into this window.
NO_WINDOW = b"\0\4\0\0\0\0"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header_block(path: str, *more: tuple[str, str]) -> bytes:
    """Return the headers of a gRPC call, without compression; a value has at most 126 bytes."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]
    return b"".join(b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in header) for header in headers)


def message(contents: bytes = b"", *, compressed: bool = False) -> bytes:
    """Return the bytes of a gRPC message."""
    return bytes([compressed]) + len(contents).to_bytes(4, "big") + contents


class RawConnection:
    """A connection on which a test sends what it likes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._received = b""

    def open(self, settings: bytes = b"") -> None:
        """Begin HTTP/2."""
        self.send(PREFACE + frame(SETTINGS, payload=settings))

    def send(self, data: bytes) -> bool:
        """Send bytes; return False if the server has closed the connection."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def flood(self, chunks: Iterable[bytes], seconds: float) -> None:
        """Send chunks for some seconds, or until the server closes the connection or reads no more."""
        end = time.monotonic() + seconds
        for chunk in chunks:
            if not self.send(chunk) or time.monotonic() > end:
                return

    def is_closed(self) -> bool:
        """Return whether the server has closed the connection; does not wait."""
        self.socket.settimeout(0)
        try:
            while data := self.socket.recv(65536):
                self._received += data
        except BlockingIOError:
            return False
        except OSError:
            return True
        else:
            return True
        finally:
            self.socket.settimeout(10)

    def frames(self) -> Sequence[tuple[int, int, bytes]]:
        """Return kind, stream and payload of each frame received so far."""
        self.is_closed()
        return list(_frames(self._received))


def _frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
        yield data[3], int.from_bytes(data[5:9], "big"), data[9:end]
        data = data[end:]


@contextmanager
def raw_connections(port: int, count: int) -> Iterator[list[RawConnection]]:
    """Open connections, and close them after the block."""
    connections: list[RawConnection] = []
    try:
        connections.extend(RawConnection(port) for _ in range(count))
        yield connections
    finally:
        for connection in connections:
            connection.socket.close()
