"""A port on which several servers listen (SO_REUSEPORT): Linux gives each new connection to one of them."""

import os
import socket
import stat
from pathlib import Path


def leave(port: int) -> None:
    """Stop listening on a port, so that the other servers get all new connections; open connections stay.

    gRPC stops listening only when it also refuses calls, and until then Linux would go on giving connections to a
    draining server. So this shuts down gRPC's listening sockets. gRPC notices that they accept nothing more and ignores
    them.
    """
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
            if _listens_on(found, port):
                found.shutdown(socket.SHUT_RD)


def _listens_on(found: socket.socket, port: int) -> bool:
    if found.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return bool(listens) and found.getsockname()[1] == port
