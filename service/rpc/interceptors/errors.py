"""Turns every failure of a call into one status with details, after the unit of work has ended."""

import asyncio
from typing import NoReturn
from uuid import uuid4

import structlog
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AbortError, InternalError
from grpc_status import rpc_status

from service.application.ports.errors import Overloaded
from service.observability.logs import where_raised
from service.rpc.admission.refusals import Trailers, next_refusal
from service.rpc.call_context import current_call
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request
from service.rpc.status import OVERLOADED, internal_error, reason_of, status_of

log = structlog.get_logger()


class ErrorInterceptor(Interceptor):
    """Answers an exception with its status. One without a status becomes INTERNAL; only the log says what caused it."""

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method with error handling."""

        async def answer_failures(request: Request, context: Context) -> Message | bytes | None:
            try:
                return await call(request, context)
            except AbortError:
                # A library's servicer (health, reflection) has set the status already.
                raise
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task and task.cancelling():
                    # The call itself was cancelled, because its client disconnected or its deadline passed. The client
                    # does not wait for a status.
                    raise
                # Code inside the call was cancelled: without a status the client would wait until its deadline.
                failure: BaseException = error
            except Exception as error:  # noqa: BLE001 - this is where all failures end
                failure = error
            return await _abort(method, context, failure)

        return answer_failures


async def _abort(method: Method, context: Context, failure: BaseException) -> NoReturn:
    code, message, trailers, reason = _answer(method, failure)
    current = current_call()
    current.reason = reason
    if isinstance(failure, Overloaded):
        current.refused_by = failure.full
    _forget_frames(failure)
    # `abort` replaces the trailing metadata that is already set (the x-request-id) unless that is passed again.
    already_set = context.trailing_metadata() or ()
    try:
        await context.abort(code, message, (*already_set, *trailers))
    except InternalError as error:
        # The call has ended meanwhile: its caller has left, and gRPC would log an error.
        current.reason = ""
        raise asyncio.CancelledError from error


def _answer(method: Method, failure: BaseException) -> tuple[StatusCode, str, Trailers, str]:
    """Return the code, the message, the trailing metadata and the reason for a failure."""
    if isinstance(failure, Overloaded):
        refusal = next_refusal()
        return refusal.code, refusal.message, refusal.trailers, OVERLOADED
    status = status_of(failure)
    if status is None:
        error_id = str(uuid4())
        log.error("internal error", method=method.path, error_id=error_id, **where_raised(failure))
        status = internal_error(error_id)
    prepared = rpc_status.to_status(status)
    return prepared.code, prepared.details, tuple(prepared.trailing_metadata), reason_of(failure)


def _forget_frames(failure: BaseException) -> None:
    """Remove the tracebacks of a failure and its causes: their frames hold the failure, which makes a cycle."""
    error: BaseException | None = failure
    # Clearing tracebacks also ends this loop where the chain is circular: a cause can be raised again while its effect
    # is handled.
    while error and error.__traceback__:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
