"""Deserializes requests, large ones in turns, and refuses what is not a message or for which there is no memory.

gRPC deserializes a request before it calls any interceptor. So a request is refused in two steps: the deserializer
returns a mark in its place, and the wrapped method raises the error. The deserializers of later interceptors may return
such marks too. Large requests are only marked, and deserialized by the wrapped method, so that many that arrive
together take a turn of the event loop each, after admission.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from service.application.ports.errors import Overloaded
from service.domain.errors import FieldViolation, MalformedRequest
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request
from service.runtime.loop_turns import LoopTurns

# Smaller requests are not counted: the limit on concurrent calls bounds their memory. Nor do they take turns: a GetUser
# takes more time than to deserialize one.
_SMALL_BYTES = 4 * 1024
# The part of the time in which large requests are deserialized while several wait.
_SHARE = 0.5


class _Mark:
    """Stands for a request that is not deserialized."""

    __slots__ = ()


class _Large(_Mark):
    """Stands for a request that takes a turn of the event loop to be deserialized."""

    __slots__ = ("data", "deserialize")

    def __init__(self, data: bytes, deserialize: Callable[[bytes], Request]) -> None:
        self.data = data
        self.deserialize = deserialize


class Refused(_Mark):
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
_NO_MEMORY = Refused(partial(Overloaded, "request_bytes"))


class DeserializationInterceptor(Interceptor):
    """Refuses malformed requests, and large ones while the requests in flight are too large together.

    Of all large requests, one is deserialized in a turn of the event loop.

    A request of a stream is not counted. ImportUsers has one at a time in memory, and what starts a stream of responses
    is small (`service.rpc.interceptors.validation`).

    Args:
        max_bytes_in_flight: the maximum size of all requests in flight together. gRPC keeps the bytes of a request
            until its call ends, beside the message, so the memory is about twice as much.
    """

    def __init__(self, max_bytes_in_flight: int) -> None:
        self._max_bytes_in_flight = max_bytes_in_flight
        self._bytes_in_flight = 0
        self._turns = LoopTurns(_SHARE)

    def deserializer(self, method: Method, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return a deserializer that returns a mark instead of raising."""
        counted = not (method.request_streaming or method.response_streaming)

        def deserialize_or_refuse(data: bytes) -> Request:
            try:
                return deserialize(data)
            except (DecodeError, ValueError):
                return _MALFORMED

        if not counted:
            return deserialize_or_refuse

        def deserialize_or_mark(data: bytes) -> Request:
            if len(data) <= _SMALL_BYTES:
                return deserialize_or_refuse(data)
            return _Large(data, deserialize_or_refuse) if self._has_room_for(len(data)) else _NO_MEMORY

        return deserialize_or_mark

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method to deserialize large requests, and to raise the errors of refused ones."""
        if method.request_streaming:
            return lambda requests, context: call(_each_checked(requests), context)

        async def deserialize_and_call(large: _Large, context: Context) -> Any:  # noqa: ANN401 - what the method returns
            await self._turns.take()
            return await call(_checked(large.deserialize(large.data)), context)

        # Not a coroutine function: that would be one coroutine more for every call.
        def check(request: Request, context: Context) -> Coroutine[Any, Any, Any]:
            if isinstance(request, _Mark):
                if isinstance(request, _Large):
                    return deserialize_and_call(request, context)
                request = _checked(request)
            return call(request, context)

        return check

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
