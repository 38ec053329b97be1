"""A port that several processes of one service share (SO_REUSEPORT)."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def reserved_port(host: str, port: int, *, shared: bool) -> Iterator[int]:
    """Reserve a port, on which other processes of the same user can listen until the block ends; yields its number.

    This process does not listen, so it gets no connection. But no other program can take the port, even while no
    worker listens.

    Args:
        host: the address.
        port: the port; 0 selects a free one.
        shared: whether other servers may listen on the port already. (Otherwise this refuses a port that one uses.)

    Raises:
        OSError: the port is in use, or this machine does not have the address.
    """
    with ExitStack() as sockets:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            reserved = sockets.enter_context(socket.socket(family, kind, protocol))
            # As servers do: the port is free although connections of a previous server are still in TIME_WAIT.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            # All addresses of a name get the same port.
            reserved.bind((address[0], port, *address[2:]))
            port = reserved.getsockname()[1]
            # From now on, Linux lets those of the same user in that set SO_REUSEPORT, and nobody else.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield port
