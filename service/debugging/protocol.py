"""The debug socket: its name, who may use it, and what is said on it.

It is an abstract Unix socket (Linux). That is no file, so a server has one where it can write nowhere, and it ends with
its process. It is found only in the network namespace of the server: no other machine reaches it, nor another
container that does not share that namespace. It has no permissions, so each side asks the kernel whose process the
other one is (SO_PEERCRED).

A client sends one line of JSON, the question, and the server answers with one line and closes the connection.
"""

import json
import os
import secrets
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# How the names of all debug sockets begin. The process id of the server follows, and what makes the name unique.
PREFIX = "commerce-debug/"
# A longer question is none of ours.
MAX_QUESTION_BYTES = 4096
_SOCKETS = Path("/proc/net/unix")
# The columns of that file, up to the name, and the flag of a socket that listens.
_COLUMNS = 8
_LISTENS = 0x10000
# In <sys/socket.h>: process id, user id, group id.
_CREDENTIALS = struct.Struct("iII")


class Peer(NamedTuple):
    """The process at the other end of a connection.

    Attributes:
        pid: its process id; 0 if it is in another PID namespace, such as that of another container.
        uid: its user id.
    """

    pid: int
    uid: int


def new_name() -> str:
    """Return a name for the debug socket of this process, which no other one has."""
    return f"\0{PREFIX}{os.getpid()}/{secrets.token_hex(4)}"


def names() -> Iterator[str]:
    """Yield the names of all debug sockets of this network namespace; raises OSError if the system has no list."""
    for line in _SOCKETS.read_text().splitlines()[1:]:
        columns = line.split(maxsplit=_COLUMNS - 1)
        if len(columns) == _COLUMNS and int(columns[3], 16) & _LISTENS and columns[-1].startswith(f"@{PREFIX}"):
            yield f"\0{columns[-1][1:]}"


def peer_of(connection: socket.socket) -> Peer:
    """Return the process at the other end of a connection."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return Peer(pid, uid)


def may_ask(peer: Peer) -> bool:
    """Return whether a process may ask this one: if its user could do more to it than that, which root can, too.

    A process that is not visible here could not: it is in another container, whose users have nothing to do with those
    of this one, even if their numbers are the same.
    """
    return peer.pid != 0 and peer.uid in {0, os.geteuid()}


def send_line(connection: socket.socket, value: Mapping[str, Any]) -> None:
    """Send a question or an answer; raises OSError."""
    connection.sendall(json.dumps(value).encode() + b"\n")


def receive_line(connection: socket.socket, max_bytes: int) -> dict[str, Any]:
    """Return a question or an answer.

    Raises:
        OSError: the other side does not send it in time.
        ValueError: it has sent something else, or too much of it.
    """
    received = bytearray()
    while not received.endswith(b"\n"):
        if len(received) > max_bytes:
            raise ValueError("the line is too long")
        if not (more := connection.recv(65536)):
            raise ValueError("the line has no end")
        received += more
    value = json.loads(received)
    if not isinstance(value, dict):
        raise ValueError("the line is no object")  # noqa: TRY004 - what was sent is wrong, not an argument
    return value
