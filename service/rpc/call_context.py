"""The context of the running call: the service's only context variable.

The outermost interceptor, which writes the access log, sets the variable at the start of a call and resets it at the
end. Code inside the call sets the attributes of the context. A task that a call starts gets the same object, so a write
that continues after its client has disconnected still has its context.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from service.application.ports.unit_of_work import TimeLeft, UnitOfWork
from service.rpc.identity.caller import ANONYMOUS, Caller
from service.runtime.deadline import no_deadline

if TYPE_CHECKING:
    from uuid import UUID


class CallContext:
    """Values that belong to one call.

    Attributes:
        x_request_id: ties the log lines of the call together.
        metadata: the metadata that the client sent. It is read once, because each reading costs gRPC as much as logging
            the call. If a key was sent twice, it has the last value.
        caller: who calls. AuthenticationInterceptor sets it; without that, it stays ANONYMOUS.
        limited_to: the user to whose things AuthorizationInterceptor has limited the call; None for no limit.
        prefers_replica: whether the replica may answer reads. It stays False for writes and streams.
        time_left: how long the call may still take; nothing once its client has gone. Unlimited for streams.
        unit_of_work: the unit of work of a method with side effects, while the method runs.
        working: whether a write goes on in its task, also after its client has gone.
        after_work: called when that ends.
        reason: of the error with which the call has failed; empty without one.
        refused_by: what was full if the call was refused for load; empty otherwise.
    """

    __slots__ = (
        "after_work",
        "caller",
        "limited_to",
        "metadata",
        "prefers_replica",
        "reason",
        "refused_by",
        "time_left",
        "unit_of_work",
        "working",
        "x_request_id",
    )

    def __init__(self, x_request_id: str, metadata: Mapping[str, str | bytes]) -> None:
        self.x_request_id = x_request_id
        self.metadata = metadata
        self.caller = ANONYMOUS
        self.limited_to: UUID | None = None
        self.prefers_replica = False
        self.time_left: TimeLeft = no_deadline
        self.unit_of_work: UnitOfWork | None = None
        self.working = False
        self.after_work: Callable[[], None] | None = None
        self.reason = ""
        self.refused_by = ""


_current: ContextVar[CallContext | None] = ContextVar("call_context", default=None)
# The variable's own methods, because a wrapper function would slow down every call. `enter` returns the token for
# `leave`.
enter = _current.set
leave = _current.reset


def current_call() -> CallContext:
    """Return the context of the running call.

    Raises:
        LookupError: no call is running, or AccessLogInterceptor is not in the chain.
    """
    call = _current.get()
    if call is None:
        raise LookupError("no call context: AccessLogInterceptor sets it for every call")
    return call


def x_request_id() -> str | None:
    """Return the x-request-id of the running call, or None outside any call."""
    call = _current.get()
    return None if call is None else call.x_request_id


def current_caller() -> Caller:
    """Return the caller of the running call; ANONYMOUS outside any call."""
    call = _current.get()
    return ANONYMOUS if call is None else call.caller


def prefers_replica() -> bool:
    """Return whether the running call prefers the replica; False outside any call."""
    call = _current.get()
    return call is not None and call.prefers_replica


def time_left() -> TimeLeft:
    """Return how long the running call may still take; unlimited outside any call."""
    call = _current.get()
    return no_deadline if call is None else call.time_left


def current_unit_of_work() -> UnitOfWork:
    """Return the unit of work of the running call.

    Raises:
        LookupError: the call has none: TransactionInterceptor is not in the chain, or the method declares
            NO_SIDE_EFFECTS.
    """
    uow = current_call().unit_of_work
    if uow is None:
        raise LookupError("no unit of work: TransactionInterceptor opens one for methods that are not NO_SIDE_EFFECTS")
    return uow
