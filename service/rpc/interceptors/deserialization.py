"""Refuses requests that are not messages, or for which there is no memory, with this service's own status.

gRPC deserializes a request before it calls any interceptor. So a request is refused in two steps: the deserializer
returns a mark in its place, and the wrapped method raises the error. The deserializers of later interceptors may return
such marks too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from service.application.ports.errors import Overloaded
from service.domain.errors import FieldViolation, MalformedRequest
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Method, Request

# Smaller requests are not counted: the limit on concurrent calls bounds their memory.
_SMALL_BYTES = 4 * 1024


class Refused:
    """Stands for a request until its method can raise the error.

    Args:
        error: makes the error.
    """

    __slots__ = ("error",)

    def __init__(self, error: Callable[[], Exception]) -> None:
        self.error = error


def _malformed() -> Exception:
    what = "is not the request message of this method, or contains a string that is not UTF-8"
    return MalformedRequest([FieldViolation("", what)], f"the request {what}")


_MALFORMED = Refused(_malformed)
_NO_MEMORY = Refused(Overloaded)


class DeserializationInterceptor(Interceptor):
    """Refuses malformed requests, and large ones while the requests in flight are too large together.

    A request of a stream is not counted. ImportUsers has one at a time in memory, and what starts a stream of responses
    is small (`service.rpc.interceptors.validation`).

    Args:
        max_bytes_in_flight: the maximum size of all requests in flight together. gRPC keeps the bytes of a request
            until its call ends, beside the message, so the memory is about twice as much.
    """

    def __init__(self, max_bytes_in_flight: int) -> None:
        self._max_bytes_in_flight = max_bytes_in_flight
        self._bytes_in_flight = 0

    def deserializer(self, method: Method, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return a deserializer that returns a mark instead of raising."""
        counted = not (method.request_streaming or method.response_streaming)

        def deserialize_or_mark(data: bytes) -> Request:
            if counted and len(data) > _SMALL_BYTES and not self._has_room_for(len(data)):
                return _NO_MEMORY
            try:
                return deserialize(data)
            except (DecodeError, ValueError):
                return _MALFORMED

        return deserialize_or_mark

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method to raise the errors of refused requests."""
        # Not a coroutine function: that would be one coroutine more for every call.
        check = _each_checked if method.request_streaming else _checked
        return lambda request, context: call(check(request), context)

    def _has_room_for(self, size: int) -> bool:
        """Count a request until its call has ended, unless it is too large for now."""
        # One request is always allowed, however large requests may be.
        if self._bytes_in_flight and self._bytes_in_flight + size > self._max_bytes_in_flight:
            return False
        task = asyncio.current_task()
        if task:
            self._bytes_in_flight += size
            # gRPC deserializes in the task that handles the call and sends the response.
            task.add_done_callback(partial(self._free, size))
        return True

    def _free(self, size: int, _task: object) -> None:
        self._bytes_in_flight -= size


def _checked(request: Request) -> Request:
    if isinstance(request, Refused):
        raise request.error()
    return request


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)
