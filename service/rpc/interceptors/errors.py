"""Turns every failure into one status with details, once, after the unit of work has ended."""

import asyncio
from typing import NoReturn
from uuid import uuid4

import structlog
from google.protobuf.message import Message
from grpc.aio import AbortError
from grpc_status import rpc_status

from service.observability.logs import where_raised
from service.rpc.interceptors.base import Call, Context, Interceptor, Method, Request
from service.rpc.status import internal_error, status_of

log = structlog.get_logger()


class ErrorInterceptor(Interceptor):
    """Answers an exception with its status. What nothing is known of is INTERNAL; its cause goes to the log only."""

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its failures answered."""

        async def answer_failures(request: Request, context: Context) -> Message | bytes | None:
            try:
                return await call(request, context)
            except AbortError:
                # A library's servicer (health, reflection) has answered already.
                raise
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task and task.cancelling():
                    # The call itself was cancelled: its caller has gone, or its deadline passed. Nobody waits for a
                    # status.
                    raise
                # Cancelled from inside: without a status the caller would wait until its deadline.
                failure: BaseException = error
            except Exception as error:  # noqa: BLE001 - this is where all failures end
                failure = error
            return await _abort(method, context, failure)

        return answer_failures


async def _abort(method: Method, context: Context, failure: BaseException) -> NoReturn:
    status = status_of(failure)
    if status is None:
        error_id = str(uuid4())
        log.error("internal error", method=method.path, error_id=error_id, **where_raised(failure))
        status = internal_error(error_id)
    _forget_frames(failure)
    grpc_status = rpc_status.to_status(status)
    # What is set so far (the caller's x-request-id) would be replaced by the details.
    sent = context.trailing_metadata() or ()
    trailing = (*sent, *grpc_status.trailing_metadata)
    await context.abort(grpc_status.code, grpc_status.details, trailing)


def _forget_frames(failure: BaseException) -> None:
    """Free what the frames hold that a failure and its causes went through: they hold the failure, and so keep it."""
    error: BaseException | None = failure
    # Each at most once: a cause may have been raised again while its effect was handled.
    while error and error.__traceback__:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
