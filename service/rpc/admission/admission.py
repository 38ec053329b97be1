"""Admission: decides for each call whether it runs, waits or is refused."""

from collections.abc import Callable, Collection
from typing import Any

from google.protobuf.descriptor_pb2 import MethodOptions

from service.config import AdmissionSettings
from service.rpc.admission.gate import Gate
from service.rpc.methods import Context, Method
from service.runtime.adaptive_limit import AdaptiveLimit

# How many times the lowest limit the limit is at the start.
_START = 2
# Lists that count can take long, as other expensive calls.
_COUNTS = "include_total_size"


class Admission:
    """Has a gate for each class of calls, so that those of one class do not wait for those of another.

    - Reads and writes have a limit each that follows how long they take. Writes can wait for locks, and reads go on.
    - Expensive calls, which search, count or hash a password, take long by nature, so their times say nothing about the
      load. How many of them work at a time is limited elsewhere (`service.db.connections.expensive_reads`,
      `service.passwords`); here it is limited how many there are together with those that wait for that.

    Streams, health and reflection have no gate; streams are limited by their own bounds.

    Args:
        settings: the limits.
        maximum: the highest limit of reads, and of writes.
        expensive: the paths of methods that are expensive.
        likely_caller: returns the name that the credentials of a call probably give, without verifying them; None if
            that would take work. Only a refusal may depend on it.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        maximum: int,
        expensive: Collection[str],
        likely_caller: Callable[[Context], str | None],
    ) -> None:
        least, highest = settings.admission_min_calls, max(settings.admission_min_calls, maximum)
        start = min(_START * least, highest)
        expensive_calls = settings.admission_expensive_calls

        def gate(limit: AdaptiveLimit) -> Gate:
            size, seconds = settings.admission_queue_size, settings.admission_queue_timeout
            return Gate(limit, reserve=least, queue_size=size, queue_seconds=seconds)

        self.reads = gate(AdaptiveLimit(start, minimum=least, maximum=highest))
        self.writes = gate(AdaptiveLimit(start, minimum=least, maximum=highest))
        # Its limit does not change, because nothing is added to it.
        self.expensive = gate(AdaptiveLimit(expensive_calls, minimum=expensive_calls, maximum=expensive_calls))
        self._expensive_methods = expensive
        self._gates: dict[str, Gate] = {}
        self.likely_caller = likely_caller

    def add(self, method: Method) -> Gate | None:
        """Return the gate of a method; None if its calls are not limited here."""
        if not method.is_ours or method.request_streaming or method.response_streaming or method.descriptor is None:
            return None
        if method.path in self._expensive_methods:
            gate = self.expensive
        elif method.descriptor.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS:
            gate = self.reads
        else:
            gate = self.writes
        self._gates[method.path] = gate
        return gate

    def may_refuse(self, path: str) -> bool:
        """Return whether calls of some callers would be refused; asked before it is known who calls."""
        gate = self._gates.get(path)
        return gate is not None and gate.may_be_filling

    def refuses(self, path: str, caller: str) -> bool:
        """Return whether a call of this caller would be refused."""
        return self._gates[path].is_nearly_full(caller)


def counts(method: Method) -> bool:
    """Return whether requests of a method can ask for the number of all resources."""
    return method.descriptor is not None and _COUNTS in method.descriptor.input_type.fields_by_name


def asks_for_count(request: Any) -> bool:  # noqa: ANN401 - a message, or a mark in the place of one
    """Return whether a request asks for the number of all resources."""
    return bool(getattr(request, _COUNTS, False))
