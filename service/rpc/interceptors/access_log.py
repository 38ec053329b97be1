"""Sets the call context, logs each call in one line, and counts it."""

import asyncio
import re
import time
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import Message
from uuid_utils import uuid4

from service.observability.metrics.calls import Calls, MethodCalls
from service.rpc.call_context import CallContext, enter, leave
from service.rpc.identity.caller import ANONYMOUS
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request

HEADER = "x-request-id"
# The metadata with the trace of a call (W3C Trace Context).
_TRACEPARENT = "traceparent"
_VALID_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Logged at debug: probes call health every second, and tools call reflection.
_QUIET = ("/grpc.health.", "/grpc.reflection.")

log = structlog.get_logger()


class AccessLogInterceptor(Interceptor):
    """Logs method, code, duration and caller of each call under its `x-request-id`, and counts the calls that run.

    The client chooses the id, or the server makes one where that is missing or invalid; the trailers return it. It has
    nothing to do with the `request_id` of a mutation.

    Args:
        calls: the counts of calls, for metrics; None counts nothing more.

    Attributes:
        tasks: the tasks in which the methods of calls run, from the request to the response; each with the path of the
            method, the time when the call began (`time.perf_counter`), and its context.
    """

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls = calls
        self._running: dict[str, int] = {}
        self.tasks: dict[asyncio.Task[Any], tuple[str, float, CallContext]] = {}

    def running_calls(self) -> dict[str, int]:
        """Return the number of running calls of each method that has any, except health and reflection."""
        return {path: count for path, count in self._running.copy().items() if count and not path.startswith(_QUIET)}

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method with access logging."""
        path, running, tasks = method.path, self._running, self.tasks
        running.setdefault(path, 0)
        line = log.bind(method=path)
        write = line.debug if path.startswith(_QUIET) else line.info
        counts, count = self._counts_of(method), self._count

        async def log_call(request: Request, context: Context) -> Message | bytes | None:
            started = time.perf_counter()
            metadata = _metadata_of(context)
            x_request_id = _valid_id(metadata.get(HEADER)) or str(uuid4())
            context.set_trailing_metadata(((HEADER, x_request_id),))
            code = "CANCELLED"
            running[path] += 1
            if counts is not None:
                counts.begin()
            task = cast("asyncio.Task[Any]", asyncio.current_task())
            call_context = CallContext(x_request_id, metadata)
            tasks[task] = (path, started, call_context)
            token = enter(call_context)
            try:
                response = await call(request, context)
            except grpc.aio.AbortError as error:
                code = context.code().name
                # gRPC stores the error with the call, and the frames in its traceback hold the call: a cycle.
                error.__traceback__ = None
                del context
                raise
            else:
                code = "OK"
                return response
            finally:
                running[path] -= 1
                tasks.pop(task, None)
                seconds = time.perf_counter() - started
                duration_ms = round(seconds * 1000, 2)
                if counts is not None:
                    count(counts, code, seconds, call_context)
                if (caller := call_context.caller) is ANONYMOUS:
                    write("call", code=code, duration_ms=duration_ms)
                elif caller.end_user is None:
                    write("call", code=code, duration_ms=duration_ms, caller=caller.name)
                else:
                    end_user = str(caller.end_user)
                    write("call", code=code, duration_ms=duration_ms, caller=caller.name, on_behalf_of=end_user)
                leave(token)

        return log_call

    def _counts_of(self, method: Method) -> MethodCalls | None:
        streams = {"request_streaming": method.request_streaming, "response_streaming": method.response_streaming}
        return None if self._calls is None else self._calls.add(method.path, **streams)

    def _count(self, counts: MethodCalls, code: str, seconds: float, call_context: CallContext) -> None:
        """Count a call that has ended."""
        counts.end(code, call_context.reason, seconds, call_context.metadata.get(_TRACEPARENT))
        if call_context.refused_by:
            counts.refuse(call_context.refused_by)
        if self._calls is not None and call_context.caller is not ANONYMOUS:
            self._calls.authenticate(call_context.caller.name)


def id_trailer(context: Context) -> tuple[str, str]:
    """Return the trailing metadata with the `x-request-id` of a call that no interceptor sees."""
    return (HEADER, _valid_id(_metadata_of(context).get(HEADER)) or str(uuid4()))


def _metadata_of(context: Context) -> dict[str, str | bytes]:
    return {key: value for key, value in context.invocation_metadata() or ()}  # noqa: C416 - `dict()` takes twice as long with named tuples


def _valid_id(sent: str | bytes | None) -> str | None:
    return sent if isinstance(sent, str) and _VALID_ID.fullmatch(sent) else None
