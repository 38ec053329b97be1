"""The sockets that a server listens on: TCP ports and a Unix socket.

gRPC stops listening only when it also refuses calls. Until then, clients that a draining server has moved away by
GOAWAY would connect to it again, and get CANCELLED when it stops. So the sockets are shut down here, while connections
that are open are still served.
"""

import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

# What identifies a listening socket: its TCP port, or the path that a Unix socket was bound to.
Place = int | str
# Of the path of a Unix socket.
_MAX_PATH_BYTES = 107
# What distinguishes the sockets of one process.
_numbers = count()


class UnixSocket:
    """A Unix socket to listen on, at a path that belongs to the server that listened on it last.

    gRPC binds a socket after deleting what is at its path, and when it stops it deletes the path again, even if another
    server listens on it by then. So it binds to a path of its own, beside the right one, and the socket is moved from
    there: a client finds the previous server's socket or this one, and never none.

    Args:
        path: the path that clients connect to.
        mode: the permissions of the socket; programs that may write to it may connect.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self._mode = mode
        self.bound = path.with_name(f".{os.getpid()}.{next(_numbers)}")
        self._identity: tuple[int, int] | None = None

    def listen(self, bind: Callable[[str], None], *, replace: bool) -> None:
        """Listen.

        Args:
            bind: binds a socket to a path; raises OSError.
            replace: whether to take over from a server that listens on the path.

        Raises:
            OSError: the path is too long, something else is there, a server listens on it, or it cannot be written.
        """
        if any(len(os.fsencode(path)) > _MAX_PATH_BYTES for path in (self.path, self.bound)):
            raise OSError(f"the path is too long: it may have {_MAX_PATH_BYTES} bytes")
        if self.path.exists() and not self.path.is_socket():
            raise OSError("something else has this name")
        if not replace and _answers(self.path):
            raise OSError("another server listens on it")
        # The mode of a new socket is what the mask leaves of 777; set afterwards, others could connect meanwhile.
        mask = os.umask(0o777 & ~self._mode)
        try:
            bind(str(self.bound))
        finally:
            os.umask(mask)
        self.bound.replace(self.path)
        found = self.path.stat()
        self._identity = found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove the path, unless another server listens on it now."""
        with suppress(FileNotFoundError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self.path.unlink()


def _answers(path: Path) -> bool:
    """Return whether a server listens on a Unix socket; a socket that a dead server left behind refuses connections."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            # It is too busy to answer, or may not be asked.
            return True
    return True


def stop_listening(*places: Place) -> None:
    """Stop listening, so that clients connect to other servers; open connections stay.

    gRPC notices that its sockets accept nothing more and ignores them. Only Linux allows it; on other systems this does
    nothing.
    """
    for found in _sockets_of(places):
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.shutdown(socket.SHUT_RD)


def open_connections(*places: Place) -> int | None:
    """Return how many connections to these places this process has open; None if that is unknown (not on Linux)."""
    if sys.platform != "linux":
        return None
    return sum(map(_has_peer, _sockets_of(places)))


def _has_peer(found: socket.socket) -> bool:
    try:
        found.getpeername()
    except OSError:
        # It listens, or listened.
        return False
    return True


def _sockets_of(places: tuple[Place, ...]) -> Iterator[socket.socket]:
    """Yield a duplicate of each socket of this process whose local address is one of these."""
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
            if _place_of(found) in places:
                yield found


def _place_of(found: socket.socket) -> Place | None:
    match found.family:
        case socket.AF_INET | socket.AF_INET6:
            port: int = found.getsockname()[1]
            return port
        case socket.AF_UNIX:
            name: str | bytes = found.getsockname()
            return name if isinstance(name, str) else None
        case _:
            return None
