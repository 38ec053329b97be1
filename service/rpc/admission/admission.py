"""Admission: decides for each call whether it runs, waits or is refused."""

from collections.abc import Callable, Collection

from service.config import AdmissionSettings
from service.rpc.admission.gate import Gate
from service.rpc.methods import Context, Method
from service.runtime.adaptive_limit import AdaptiveLimit

# How many calls of one method may run for each connection, and how many may above that, each of a caller without
# another one. For writes, these are together what transactions may hold (`service.db.writes.transaction`), because a
# write can hold a connection for as long as it waits for a lock. For reads, they are a few more, so that no connection
# is idle: with fewer, a page took up to a fifth more CPU.
_WRITES = 0.6
_READS = 1.2
_RESERVED = 0.2
# The lowest limit of such calls. One read can keep the event loop or PostgreSQL busy, so reads begin with it. A write
# that waits for a lock must not hold up all others of its method, so writes begin with the highest limit.
_FEWEST_READS, _FEWEST_WRITES = 1, 2
# When such calls are late: sooner than those that share statements, which become cheaper with more of them.
_LATE_READS = {"late_factor": 1.5, "late_seconds": 0.005}
_LATE_WRITES = {"late_factor": 1.5, "late_seconds": 0.002}
# How many calls that hold no connection may run above their limit.
_RESERVE = 4


class Admission:
    """Has a gate for each method, so that calls do not wait for those of other methods.

    Methods differ in what they take and what they wait for: a read by id takes a millisecond, a list of large orders
    hundreds, and a write may wait for a lock. So how long the calls of one method take says nothing about another one.

    - Most calls hold a connection of the database while they run. So few of one method run at a time that the writes of
      other methods find a connection, and reads wait for few others.
    - Calls that share statements become cheaper with more of them, so at least `admission_min_calls` of them run.

    Streams, health and reflection have no gate; streams are limited by their own bounds.

    Args:
        settings: the limits.
        maximum: the highest limit of a method whose calls hold no connection.
        connections: the number of connections that calls can hold.
        without_connection: the paths of the methods whose calls hold none of their own: they share statements, or
            mostly wait for something else, which has limits of its own.
        likely_caller: returns the name that the credentials of a call probably give, without verifying them; None if
            that would take work. Only a refusal may depend on it.

    Attributes:
        gates: the gate of each method, by its path.
        likely_caller: as above.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        maximum: int,
        connections: int,
        without_connection: Collection[str],
        likely_caller: Callable[[Context], str | None],
    ) -> None:
        self._settings = settings
        self._maximum = max(settings.admission_min_calls, maximum)
        self._connections = connections
        self._without_connection = without_connection
        self.gates: dict[str, Gate] = {}
        self.likely_caller = likely_caller

    def add(self, method: Method) -> Gate | None:
        """Return the gate of a method; None if its calls are not limited here."""
        if not method.is_ours or method.request_streaming or method.response_streaming:
            return None
        settings = self._settings
        if method.path in self._without_connection:
            reserve = _RESERVE
            limit = AdaptiveLimit(
                settings.admission_min_calls, minimum=settings.admission_min_calls, maximum=self._maximum
            )
        else:
            reserve = max(1, int(self._connections * _RESERVED))
            most = max(1, int(self._connections * (_READS if method.reads else _WRITES)))
            if method.reads:
                limit = AdaptiveLimit(_FEWEST_READS, minimum=_FEWEST_READS, maximum=most, **_LATE_READS)
            else:
                limit = AdaptiveLimit(most, minimum=min(_FEWEST_WRITES, most), maximum=most, **_LATE_WRITES)
        gate = self.gates[method.path] = Gate(
            limit,
            reserve=reserve,
            queue_size=settings.admission_queue_size,
            queue_seconds=settings.admission_queue_timeout,
        )
        return gate

    def may_refuse(self, path: str) -> bool:
        """Return whether calls of some callers would be refused; asked before it is known who calls."""
        gate = self.gates.get(path)
        return gate is not None and gate.waiting > 0

    def refuses(self, path: str, caller: str, seconds_left: float | None) -> bool:
        """Return whether a call of this caller, with so much time left, would be refused."""
        return self.gates[path].would_refuse(caller, seconds_left)
