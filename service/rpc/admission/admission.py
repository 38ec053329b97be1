"""Admission: decides for each call whether it runs, waits or is refused."""

from collections.abc import Callable

from service.config import AdmissionSettings
from service.rpc.admission.gate import Gate, Total
from service.rpc.methods import Context, Method
from service.runtime.adaptive_limit import AdaptiveLimit

# How many times the lowest limit the limit is at the start.
_START = 16


class Admission:
    """Has a gate for each method, so that calls do not wait for those of other methods.

    Methods differ in what they take and what they wait for: a read by id takes a millisecond, a list of large orders
    hundreds, and a write may wait for a lock. So how long the calls of one method take says nothing about another one.

    Streams, health and reflection have no gate; streams are limited by their own bounds.

    Args:
        settings: the limits.
        maximum: the highest limit of a method.
        likely_caller: returns the name that the credentials of a call probably give, without verifying them; None if
            that would take work. Only a refusal may depend on it.

    Attributes:
        gates: the gate of each method, by its path.
        likely_caller: as above.
    """

    def __init__(
        self, settings: AdmissionSettings, *, maximum: int, likely_caller: Callable[[Context], str | None]
    ) -> None:
        self._settings = settings
        self._maximum = max(settings.admission_min_calls, maximum)
        self._total = Total()
        self.gates: dict[str, Gate] = {}
        self.likely_caller = likely_caller

    def add(self, method: Method) -> Gate | None:
        """Return the gate of a method; None if its calls are not limited here."""
        if not method.is_ours or method.request_streaming or method.response_streaming:
            return None
        settings = self._settings
        least = settings.admission_min_calls
        limit = AdaptiveLimit(min(_START * least, self._maximum), minimum=least, maximum=self._maximum)
        gate = self.gates[method.path] = Gate(
            limit,
            reserve=least,
            queue_size=settings.admission_queue_size,
            queue_seconds=settings.admission_queue_timeout,
            total=self._total,
        )
        return gate

    def may_refuse(self, path: str) -> bool:
        """Return whether calls of some callers would be refused; asked before it is known who calls."""
        gate = self.gates.get(path)
        return gate is not None and gate.waiting > 0

    def refuses(self, path: str, caller: str, seconds_left: float | None) -> bool:
        """Return whether a call of this caller, with so much time left, would be refused."""
        return self.gates[path].would_refuse(caller, seconds_left)
