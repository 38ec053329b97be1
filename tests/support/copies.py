"""The `commerce` command in copies of a process that has loaded its modules.

Loading takes most of the CPU time of a command, and tests start hundreds. A copy has done nothing but import modules.
Its process id, session, signals, streams, environment, arguments and exit status are its own, as if Python had been
started; `service.__main__` runs in it from its first line. What Python reads when it starts is not its own: variables
such as PYTHONHASHSEED, and the command line in /proc. Only the fork server, the parent of all copies, is another than
that of a program that the tests start.
"""

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tests.support.paths import ROOT

# A command imports few of them, and each command has a test that starts Python (`tests.support.processes.COMMAND`).
_LOADED = ("doctor", "health", "keys", "maintain", "migrate", "one_process", "policy", "relay", "serve", "workers")
# Arguments and environment of one command.
_MAX_BYTES = 200_000


class Copy:
    """A running copy, with those methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, the negative number of the signal that ended it, or None while it runs."""
        if self.returncode is None:
            self._receive(socket.MSG_DONTWAIT)
        return self.returncode

    def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        if self.returncode is None:
            self._receive(0)
        assert self.returncode is not None
        return self.returncode

    def _receive(self, flags: int) -> None:
        try:
            answer = self._status.recv(100, flags)
        except BlockingIOError:
            return
        assert answer, "the fork server has ended"
        self.returncode = int(answer)
        self._status.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def can_copy() -> bool:
    """Return whether tests may use copies: only in pytest, and not while it measures coverage, which starts Python."""
    return "PYTEST_VERSION" in os.environ and "COVERAGE_PROCESS_CONFIG" not in os.environ


def start_copy(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
) -> Copy:
    """Start the `commerce` command with these arguments; PYTHONPATH is the same in every call."""
    request = json.dumps({"arguments": arguments, "folder": str(folder), "environment": dict(environment)}).encode()
    assert len(request) < _MAX_BYTES
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Path(os.devnull).open("rb") as stdin:
        streams = [file.fileno() for file in (stdin, stdout, stderr, theirs)]
        socket.send_fds(_server(environment["PYTHONPATH"]), [request], streams)
    pid = ours.recv(100)
    assert pid, "the fork server has ended"
    return Copy(int(pid), ours)


@cache
def _server(python_path: str) -> socket.socket:
    """Start the fork server, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": python_path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; returns the request in the copy, and None in the server when the tests have ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    pid, status = key.data
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    _, code = os.waitpid(pid, 0)
                    os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
                    os.close(status)
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, _MAX_BYTES, 4)
                if not message:
                    return None
                if not (pid := os.fork()):
                    # When it is deleted, it would close the file that then has its number.
                    control.detach()
                    return {**json.loads(message), "streams": descriptors[:3]}
                for descriptor in descriptors[:3]:
                    os.close(descriptor)
                os.write(descriptors[3], str(pid).encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, descriptors[3]))


def _become(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Run the command in this copy."""
    os.setsid()
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["service", *arguments]
    runpy.run_module("service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in _LOADED:
        import_module(f"service.cli.{name}")
    # Pages that no garbage collection writes to stay shared.
    gc.collect()
    gc.freeze()
    # A copy has only the thread that made it, and would wait forever for a lock that another one held.
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    if request := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _become(**request)
