"""Stop listening on a port while the server still serves its open connections."""

import os
import socket
import stat
import sys
from pathlib import Path


def stop_listening(port: int) -> None:
    """Stop listening on a port, so that clients connect to other servers; open connections stay.

    gRPC stops listening only when it also refuses calls. Until then, clients that a draining server has led away would
    connect to it again, and get CANCELLED when it stops. So this shuts down gRPC's listening sockets. gRPC notices that
    they accept nothing more and ignores them. Only Linux allows it; on other systems this does nothing.
    """
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
            if _listens_on(found, port):
                found.shutdown(socket.SHUT_RD)


def _listens_on(found: socket.socket, port: int) -> bool:
    if found.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return bool(listens) and found.getsockname()[1] == port
