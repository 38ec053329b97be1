"""Refuses bytes that are not a request message with this service's own status instead of the decoder's text."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from service.domain.errors import FieldViolation, MalformedRequest
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request


class _Malformed:
    """Marks a message that could not be read until a handler can refuse it."""


_MALFORMED = _Malformed()


class DeserializationInterceptor(Interceptor):
    """Refuses a malformed message inside the method, because gRPC deserializes before it calls any interceptor."""

    def deserializer(self, _method: Method, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return a deserializer that marks a malformed message instead of raising."""

        def deserialize_or_mark(data: bytes) -> Request:
            try:
                return deserialize(data)
            except (DecodeError, ValueError):
                return _MALFORMED

        return deserialize_or_mark

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method to reject malformed messages."""

        async def refuse_malformed(request: Request, context: Context) -> Message | bytes | None:
            request = _each_checked(request) if method.request_streaming else _checked(request)
            return await call(request, context)

        return refuse_malformed


def _checked(request: Request) -> Request:
    if request is _MALFORMED:
        what = "is not the request message of this method, or contains a string that is not UTF-8"
        raise MalformedRequest([FieldViolation("", what)], f"the request {what}")
    return request


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)
