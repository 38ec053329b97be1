"""Answers questions on a debug socket, in threads of its own, so that it answers while the event loop is stuck."""

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from service.debugging.protocol import MAX_QUESTION_BYTES, Peer, may_ask, new_name, peer_of, receive_line, send_line
from service.observability.logs import where_raised

# How many questions are answered at the same time.
_MOST_QUESTIONS = 4
# How long a client may take to send a question, and to read the answer.
_TRANSFER_SECONDS = 5.0
# How long to wait for a file descriptor, if the process has none left.
_PAUSE_SECONDS = 0.1
# At most one line about processes that were refused is logged in so many seconds.
_LOG_PERIOD_SECONDS = 10.0

log = structlog.get_logger()


class CannotAnswer(Exception):
    """A question cannot be answered. The message says why, in one line."""


# Returns the answer to a question. The second argument returns whether the client has gone.
Answer = Callable[[Mapping[str, Any], Callable[[], bool]], Mapping[str, Any]]


class Endpoint:
    """A debug socket, from `open` to `close`.

    Args:
        answer: returns the answers; called in a thread for each question; raises CannotAnswer.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._free = threading.BoundedSemaphore(_MOST_QUESTIONS)
        self._listener: socket.socket | None = None
        self._closed = threading.Event()
        self._logged_refusal: float | None = None

    def open(self) -> None:
        """Listen; raises OSError."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(new_name())
            listener.listen(_MOST_QUESTIONS)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        # Python does not wait for this thread.
        threading.Thread(target=self._accept, args=(listener,), name="debug", daemon=True).start()

    def close(self) -> None:
        """Stop listening; a question that is being answered then may get its answer."""
        self._closed.set()
        listener, self._listener = self._listener, None
        if listener:
            # Wakes the thread, which closes it.
            listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._closed.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    # Unless it was closed, there is no file descriptor left.
                    self._closed.wait(_PAUSE_SECONDS)
                    continue
                connection.settimeout(_TRANSFER_SECONDS)
                if refusal := self._refusal(peer := peer_of(connection)):
                    # A new connection has room for it, so this does not wait.
                    with connection, suppress(OSError):
                        send_line(connection, {"error": refusal})
                else:
                    threading.Thread(target=self._serve, args=(connection, peer), name="debug", daemon=True).start()

    def _refusal(self, peer: Peer) -> str | None:
        """Return why a process gets no answer; None if it gets one, for which it then has a place."""
        if not may_ask(peer):
            now = time.monotonic()
            if self._logged_refusal is None or now - self._logged_refusal > _LOG_PERIOD_SECONDS:
                self._logged_refusal = now
                log.warning("refused a debug question of another user or container", uid=peer.uid, pid=peer.pid)
            return "only its user and root may ask it, and only from where their processes are visible to it"
        if not self._free.acquire(blocking=False):
            return f"it is answering {_MOST_QUESTIONS} questions: ask again later"
        return None

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        try:
            # The client may go at any time.
            with connection, suppress(OSError):
                send_line(connection, self._answered(connection, peer))
        finally:
            self._free.release()

    def _answered(self, connection: socket.socket, peer: Peer) -> Mapping[str, Any]:
        try:
            question = receive_line(connection, MAX_QUESTION_BYTES)
        except ValueError:
            return {"error": "the question cannot be read: it is not from this release of commerce"}
        log.info("debug question", asked=str(question.get("ask"))[:20], uid=peer.uid, pid=peer.pid)
        try:
            return self._answer(question, lambda: _has_gone(connection))
        except CannotAnswer as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - answered without a cause, which only the log has
            log.error("a debug question could not be answered", **where_raised(error))  # noqa: TRY400 - it says where
            return {"error": "it could not answer; its log says where that has failed"}


def _has_gone(connection: socket.socket) -> bool:
    """Return whether a client has closed its connection: after its question, it sends nothing more."""
    events = select.poll()
    events.register(connection, select.POLLIN | select.POLLHUP)
    return bool(events.poll(0))
