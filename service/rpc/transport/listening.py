"""The sockets of a port: stop listening while open connections are still served, and count these."""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path


def stop_listening(port: int) -> None:
    """Stop listening on a port, so that clients connect to other servers; open connections stay.

    gRPC stops listening only when it also refuses calls. Until then, clients that a draining server has moved away by
    GOAWAY would connect to it again, and get CANCELLED when it stops. So this shuts down gRPC's listening sockets. gRPC
    notices that they accept nothing more and ignores them. Only Linux allows it; on other systems this does nothing.
    """
    for found in _sockets_of(port):
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.shutdown(socket.SHUT_RD)


def open_connections(port: int) -> int | None:
    """Return how many connections to a port this process has open; None where that is unknown (not on Linux)."""
    if sys.platform != "linux":
        return None
    return sum(map(_has_peer, _sockets_of(port)))


def _has_peer(found: socket.socket) -> bool:
    try:
        found.getpeername()
    except OSError:
        # It listens, or listened.
        return False
    return True


def _sockets_of(port: int) -> Iterator[socket.socket]:
    """Yield a duplicate of each TCP socket of this process whose local port is this one."""
    if sys.platform != "linux":
        return
    for entry in Path("/proc/self/fd").iterdir():
        try:
            # A duplicate, because closing the socket object below must not close gRPC's descriptor.
            descriptor = os.dup(int(entry.name))
        except OSError:
            # The descriptor that reads this folder, or one that was closed meanwhile.
            continue
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with socket.socket(fileno=descriptor) as found:
            if found.family in {socket.AF_INET, socket.AF_INET6} and found.getsockname()[1] == port:
                yield found
