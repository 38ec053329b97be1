"""Counts of calls, for each method.

A method has one object for all that is counted of it, which is looked up when the server starts. So a call
only adds to integers. Methods that the server does not have share one object, as a client can make up any number of
them.
"""

import re
import time
from bisect import bisect_left
from typing import Literal

from service.observability.metrics import catalogue
from service.observability.metrics.histogram import CALL_SECONDS, Histogram
from service.observability.metrics.snapshot import Buckets, Exemplar, Snapshot

Type = Literal["unary", "client_stream", "server_stream", "bidi_stream"]
# Of W3C Trace Context, for a trace that is sampled: only such a trace is stored, so that an exemplar leads to it.
_SAMPLED = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf]")
_OK = ("OK", "")
_UNKNOWN = "unknown"
# The kinds of identity, by how the names of callers begin.
_KINDS = {"jwt": "token", "key": "api_key"}


class MethodCalls:
    """What is counted of the calls of one method.

    Args:
        path: such as `/commerce.users.v1.UserService/GetUser`.
        kind: what streams.

    Attributes:
        started: calls that have begun, also those that were refused before they were read.
        handled: calls that have ended, by the name of the code and the reason.
        running: calls that run.
        received: messages of streams of requests.
        sent: messages of streams of responses.
        unread: calls that were refused before they were read.
        refused: calls that were refused for load, by cause.
        replays: calls that were answered with the stored response of their request id.
        attempts: how often the work of calls was begun.
        fast_path: calls whose work was committed as one statement.
        transactions: calls whose work was committed as a transaction.
    """

    __slots__ = (
        "_exemplars",
        "attempts",
        "counts",
        "fast_path",
        "handled",
        "kind",
        "method",
        "path",
        "received",
        "refused",
        "replays",
        "running",
        "sent",
        "service",
        "started",
        "total",
        "transactions",
        "unread",
    )

    def __init__(self, path: str, kind: Type) -> None:
        self.path = path
        self.kind = kind
        self.service, _, self.method = path.lstrip("/").partition("/")
        self.started = self.running = self.received = self.sent = self.unread = 0
        self.replays = self.attempts = self.fast_path = self.transactions = 0
        # There from the beginning, so that the rate of the first errors and successes can be computed.
        self.handled: dict[tuple[str, str], int] = {_OK: 0}
        self.refused: dict[str, int] = {}
        self.counts = [0] * (len(CALL_SECONDS) + 1)
        self.total = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def begin(self) -> None:
        """Count a call that begins."""
        self.started += 1
        self.running += 1

    def end(self, code: str, reason: str, seconds: float, traceparent: str | bytes | None) -> None:
        """Count a call that ends.

        Args:
            code: the name of its code, such as `NOT_FOUND`.
            reason: of its error, such as `USER_NOT_FOUND`; empty without one.
            seconds: how long it has taken.
            traceparent: the metadata of this name.
        """
        self.running -= 1
        key = (code, reason)
        try:
            self.handled[key] += 1
        except KeyError:
            self.handled[key] = 1
        bucket = bisect_left(CALL_SECONDS, seconds)
        self.counts[bucket] += 1
        self.total += seconds
        if traceparent is not None and isinstance(traceparent, str) and (sampled := _SAMPLED.fullmatch(traceparent)):
            self._exemplars[bucket] = Exemplar(bucket, sampled[1], seconds, time.time())

    def refuse(self, cause: str) -> None:
        """Count the cause of a call that is refused for load."""
        self.refused[cause] = self.refused.get(cause, 0) + 1

    def refuse_unread(self, code: str, reason: str, cause: str) -> None:
        """Count a call that is refused before its request is received."""
        self.started += 1
        self.unread += 1
        self.handled[code, reason] = self.handled.get((code, reason), 0) + 1
        if cause:
            self.refuse(cause)

    def add_to(self, snapshot: Snapshot) -> None:
        """Add all of this to a snapshot."""
        method = (self.kind, self.service, self.method)
        snapshot.add(catalogue.STARTED, self.started, *method)
        for (code, reason), count in self.handled.copy().items():
            snapshot.add(catalogue.HANDLED, count, *method, code, reason)
        duration = Buckets(tuple(self.counts), self.total, tuple(self._exemplars.values()))
        snapshot.add(catalogue.HANDLING_SECONDS, duration, *method)
        # Of a unary request or response, there is one message for each call.
        streams = self.kind in {"client_stream", "bidi_stream"}
        received = self.received if streams else self.started - self.unread
        snapshot.add(catalogue.MESSAGES_RECEIVED, received, *method)
        streams = self.kind in {"server_stream", "bidi_stream"}
        snapshot.add(catalogue.MESSAGES_SENT, self.sent if streams else self.handled[_OK], *method)
        if self.service == _UNKNOWN:
            return
        snapshot.add(catalogue.RUNNING_CALLS, self.running, self.service, self.method)
        for cause, count in self.refused.copy().items():
            snapshot.add(catalogue.REFUSED_CALLS, count, self.service, self.method, cause)
        if self.attempts:
            snapshot.add(catalogue.ATTEMPTS, self.attempts, self.service, self.method)
        if self.replays:
            snapshot.add(catalogue.REPLAYS, self.replays, self.service, self.method)
        for way, count in (("fast_path", self.fast_path), ("transaction", self.transactions)):
            if count:
                snapshot.add(catalogue.COMMITTED, count, self.service, self.method, way)


class Calls:
    """The counts of all methods.

    Attributes:
        authenticated: calls whose caller is known, by the kind of its credential.
        unknown: what is counted of calls of methods that the server does not have.
        stalled: calls that were cancelled because their clients neither sent nor read in time.
    """

    def __init__(self) -> None:
        self._methods: dict[str, MethodCalls] = {}
        self.unknown = MethodCalls(f"/{_UNKNOWN}/{_UNKNOWN}", "unary")
        self.authenticated: dict[str, int] = {}
        self.stalled = 0

    def add(self, path: str, *, request_streaming: bool, response_streaming: bool) -> MethodCalls:
        """Return the counts of a method, which are made if it has none yet."""
        kinds: dict[tuple[bool, bool], Type] = {
            (False, False): "unary",
            (True, False): "client_stream",
            (False, True): "server_stream",
            (True, True): "bidi_stream",
        }
        if path not in self._methods:
            self._methods[path] = MethodCalls(path, kinds[request_streaming, response_streaming])
        return self._methods[path]

    def of(self, path: str) -> MethodCalls:
        """Return the counts of a method; those of unknown methods if the server does not have it."""
        return self._methods.get(path, self.unknown)

    def authenticate(self, name: str) -> None:
        """Count a call of a known caller, given its name."""
        kind = _KINDS.get(name.partition(":")[0], "client_certificate")
        self.authenticated[kind] = self.authenticated.get(kind, 0) + 1

    def summary(self) -> tuple[dict[str, int], Histogram, int]:
        """Return the calls of our own methods: those that have ended by code, their durations, and those that run.

        The durations are those of unary calls.
        """
        outcomes: dict[str, int] = {}
        durations, running = Histogram(CALL_SECONDS), 0
        for calls in self._methods.values():
            if not calls.path.startswith("/commerce."):
                continue
            running += calls.running
            for (code, _), count in calls.handled.items():
                outcomes[code] = outcomes.get(code, 0) + count
            if calls.kind == "unary":
                durations.counts = [sum(pair) for pair in zip(durations.counts, calls.counts, strict=True)]
        return outcomes, durations, running

    def add_to(self, snapshot: Snapshot) -> None:
        """Add all of this to a snapshot."""
        for calls in (*self._methods.values(), self.unknown):
            calls.add_to(snapshot)
        for kind, count in self.authenticated.copy().items():
            snapshot.add(catalogue.AUTHENTICATED, count, kind)
        snapshot.add(catalogue.STALLED_CALLS, self.stalled)
