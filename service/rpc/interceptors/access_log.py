"""Logs each call in one line, under an id that the caller can choose."""

import re
import time

import grpc
import structlog
from google.protobuf.message import Message
from uuid_utils import uuid4

from service.observability.logs import call_id
from service.rpc.interceptors.base import Call, Context, Interceptor, Method, Request
from service.rpc.metadata import sent_metadata

HEADER = "x-request-id"
_USABLE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Answered too often to be news.
_QUIET = ("/grpc.health.", "/grpc.reflection.")

log = structlog.get_logger()


class AccessLogInterceptor(Interceptor):
    """Logs method, code and duration, and ties all lines of a call together by its `x-request-id`.

    The id is the caller's if it sent a usable one, else made here, and goes back in the trailers. It has nothing to do
    with the `request_id` of a mutation.
    """

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method, logged."""
        line = log.bind(method=method.path)
        write = line.debug if method.path.startswith(_QUIET) else line.info

        async def log_call(request: Request, context: Context) -> Message | bytes | None:
            started = time.perf_counter()
            sent = _id_of(context)
            context.set_trailing_metadata(((HEADER, sent),))
            code = "CANCELLED"
            token = call_id.set(sent)
            try:
                response = await call(request, context)
            except grpc.aio.AbortError as error:
                code = context.code().name
                # gRPC keeps the error with the call, and the frames that it went through hold the call.
                error.__traceback__ = None
                del context
                raise
            else:
                code = "OK"
                return response
            finally:
                write("call", code=code, duration_ms=round((time.perf_counter() - started) * 1000, 2))
                call_id.reset(token)

        return log_call


def _id_of(context: Context) -> str:
    sent = sent_metadata(context).get(HEADER)
    return sent if isinstance(sent, str) and _USABLE.fullmatch(sent) else str(uuid4())
