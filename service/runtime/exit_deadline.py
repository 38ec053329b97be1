"""The time by which a process has ended, even if it is stuck."""

import os
import threading
from collections.abc import Callable

# How long the report may take.
_REPORT_SECONDS = 0.5
# These seconds after the grace period of running calls, a process is ended by force.
EXIT_SECONDS = 4.0


def leaving_seconds(max_connection_age: float) -> float:
    """Return the seconds after which GOAWAY has moved all clients away: gRPC adds up to 10 % of jitter to the age."""
    return 1.1 * max_connection_age


def drain_seconds(max_connection_age: float, shutdown_grace: float) -> float:
    """Return the maximum seconds from SIGTERM to the end of a server."""
    return leaving_seconds(max_connection_age) + shutdown_grace + EXIT_SECONDS


class ExitDeadline:
    """Ends the process after some seconds, with status 1, unless it has ended by then.

    A thread does it, because nothing else can be relied on: the event loop may be blocked, a task may not end, and when
    it exits Python waits for every thread of every executor, however long that takes.

    Args:
        seconds: the seconds from now.
        report: logs what is cut; called immediately before the end, in another thread.
    """

    def __init__(self, seconds: float, report: Callable[[], None]) -> None:
        self._report = report
        self._timer = threading.Timer(seconds, self._end)
        # Python does not wait for this thread.
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Let the process take as long as it takes."""
        self._timer.cancel()

    def _end(self) -> None:
        try:
            # In a thread of its own, because writing a log line blocks while its reader does not read.
            reporting = threading.Thread(target=self._report, daemon=True)
            reporting.start()
            reporting.join(_REPORT_SECONDS)
        finally:
            os._exit(1)
