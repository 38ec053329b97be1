"""The `commerce` command for the shells of tests: it runs in copies (`tests.support.copies`), and so starts sooner."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from tests.support.copies import start_copy
from tests.support.paths import ROOT
from tests.support.processes import with_path

_MAX_BYTES = 200_000
# Has a copy run with its own arguments, environment and output, and ends with the status of the copy.
_PROGRAM = """#!{python} -IS
import json, os, socket, sys
asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps(asked).encode()], [1, 2])
    sys.exit(int(server.recv(100)))
"""


@contextmanager
def commands_in_copies() -> Iterator[Path]:
    """Yield a folder with a program `commerce`, which works until the block ends and reads no standard input."""
    with (
        TemporaryDirectory(prefix="commands-") as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        folder = Path(name)
        address = str(folder / "socket")
        listener.bind(address)
        listener.listen()
        program = folder / "commerce"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o700)
        thread = Thread(target=_serve, args=(listener,))
        thread.start()
        try:
            yield folder
        finally:
            # Ends `accept`, too.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # no more commands
        with connection:
            message, (stdout, stderr), _, _ = socket.recv_fds(connection, _MAX_BYTES, 2)
            asked = json.loads(message)
            environment = with_path(asked["environment"], ROOT)
            with os.fdopen(stdout, "wb") as out, os.fdopen(stderr, "wb") as err:
                copy = start_copy(asked["arguments"], Path(asked["folder"]), environment, out, err)
            connection.send(str(copy.wait()).encode())
