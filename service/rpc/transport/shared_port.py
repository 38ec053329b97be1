"""A port on which several servers listen: Linux gives each new connection to one of them."""

import os
import socket
import stat
from pathlib import Path


def leave(port: int) -> None:
    """Let the other servers on a port have all new connections; those that are open stay.

    gRPC stops listening only when it also refuses calls, and until then Linux would go on giving connections to a
    server that drains. The sockets are gRPC's, which notices that these take nothing more and leaves them alone.
    """
    for entry in Path("/proc/self/fd").iterdir():
        try:
            descriptor = os.dup(int(entry.name))
        except OSError:
            # The one by which this folder is read, or one closed meanwhile.
            continue
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with socket.socket(fileno=descriptor) as found:
            if found.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and found.getsockname()[1] == port:
                found.shutdown(socket.SHUT_RD)
