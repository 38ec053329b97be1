"""Denied calls: the error, a count, and a log line."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from service.domain.errors import PermissionMissing

# At most this many denials are logged in this time; the next line says how many were not.
MAX_LINES = 10
PERIOD_SECONDS = 10.0
# An identity may be longer than fits into a status, such as the subject of a certificate.
_MAX_IDENTITY = 300

log = structlog.get_logger()


def denied(permission: str, identity: str, why: str = "") -> PermissionMissing:
    """Return the error of a denied call.

    Args:
        permission: the permission that is missing.
        identity: the name of the caller.
        why: what is missing, if not all of the permission is. It must not depend on whether anything exists.
    """
    name = identity[:_MAX_IDENTITY]
    message = f"the permission {permission} is missing for {name}{why and ': '}{why}"
    return PermissionMissing(message, {"permission": permission, "identity": name})


class Denials:
    """Counts denied calls, and logs some of them.

    Args:
        clock: returns seconds.

    Attributes:
        counts: the number of denied calls, by the path of the method and the permission that was missing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._period_end = 0.0
        self._lines = 0
        self._not_logged = 0

    def record(self, method: str, error: PermissionMissing) -> None:
        """Count a denied call of a method, given by its path, and log it unless too many have been logged."""
        self.counts[method, error.metadata["permission"]] += 1
        now = self._clock()
        if now >= self._period_end:
            self._period_end, self._lines = now + PERIOD_SECONDS, 0
        if self._lines == MAX_LINES:
            self._not_logged += 1
            return
        self._lines += 1
        more = {"denials_not_logged": self._not_logged} if self._not_logged else {}
        self._not_logged = 0
        log.warning("permission denied", method=method, **error.metadata, **more)
