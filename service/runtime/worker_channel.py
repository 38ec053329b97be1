"""What a worker and its parent tell each other, over a pair of connected sockets.

The parent sends one line, the task, and the worker answers with one line: it is ready, or why it cannot start. Then the
parent may ask for reports, each with one byte, and the worker sends them, each after its length. The kernel closes the
parent's end when the parent ends, even by SIGKILL, and so the worker learns it.
(Linux could send a signal instead, PR_SET_PDEATHSIG, but a worker whose event loop is stuck would not handle it.)
"""

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

# A longer line is none of ours.
MAX_BYTES = 65536
# A longer report is none of ours.
MAX_REPORT_BYTES = 16 * 1024 * 1024
# The length of a report, before it.
LENGTH = struct.Struct("!I")
ASK = b"?"


class ParentChannel:
    """A worker's end.

    Args:
        descriptor: the inherited file descriptor of the socket.

    Attributes:
        is_told: whether the parent has been told that this worker is ready, or why it is not.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(None)
        self.is_told = False
        self._sending = threading.Lock()

    def task(self) -> dict[str, Any]:
        """Return the task that the parent has sent; ends the process if the parent has ended."""
        line = b""
        while not line.endswith(b"\n"):
            received = self._socket.recv(MAX_BYTES)
            if not received:
                os._exit(1)
            line += received
        task: dict[str, Any] = json.loads(line)
        return task

    def report_ready(self) -> None:
        """Tell the parent that this worker serves."""
        self._send(None)

    def report_failure(self, reason: str) -> None:
        """Tell the parent why this worker cannot start, in one line."""
        self._send(reason)

    def _send(self, problem: str | None) -> None:
        self.is_told = True
        try:
            self._socket.sendall(json.dumps({"problem": problem}).encode() + b"\n")
        except OSError:
            # The parent has ended, which the thread of `stop_with_parent` notices, or this process ends anyway.
            return

    def send_report(self, report: bytes) -> None:
        """Send a report, whether the parent has asked for it or not; waits until the parent takes it."""
        with self._sending:
            try:
                self._socket.sendall(LENGTH.pack(len(report)) + report)
            except OSError:
                # As in `_send`.
                return

    def stop_with_parent(
        self, last_moment: Callable[[], object], report: Callable[[], bytes | None] = lambda: None
    ) -> None:
        """Send this process SIGTERM when its parent has ended, and until then send the reports that the parent wants.

        Args:
            last_moment: called before that in a thread, to make sure that the process will have ended some time later.
            report: returns a report; called in the same thread whenever the parent asks. None sends none.
        """

        def wait() -> None:
            while self._received():
                if (data := report()) is not None:
                    self.send_report(data)
            last_moment()
            os.kill(os.getpid(), signal.SIGTERM)

        # Python does not wait for this thread.
        threading.Thread(target=wait, name="parent", daemon=True).start()

    def _received(self) -> bytes:
        try:
            return self._socket.recv(MAX_BYTES)
        except OSError:
            return b""


def encoded_task(task: dict[str, object]) -> bytes:
    """Return a task as the parent sends it."""
    return json.dumps(task).encode() + b"\n"


def problem_of(answer: bytes) -> str | None:
    """Return why a worker cannot start, given its answer; None if it is ready."""
    problem: str | None = json.loads(answer)["problem"]
    return problem
