"""Refuses requests that break the `buf.validate` rules of their messages, and spells their UUIDs in one way."""

import math
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import Message

from service.domain.errors import FieldViolation, InvalidField
from service.rpc.interceptors.base import Interceptor
from service.rpc.interceptors.deserialization import Refused
from service.rpc.messages.ids import ids_in_lower_case
from service.rpc.messages.validation import violations_of
from service.rpc.messages.wire_sizes import size_violations
from service.rpc.methods import Call, Context, Method, Request

# Parsing and validating a shorter request is cheap, with any content, and cheaper than reading its sizes.
_SMALL_BYTES = 4 * 1024
# The maximum size of a request for a stream of responses, several times that of the largest valid one. gRPC keeps its
# bytes until the stream ends, which may be never.
MAX_STREAM_REQUEST_BYTES = 64 * 1024


class ValidationInterceptor(Interceptor):
    """Refuses an invalid request with INVALID_FIELD, naming the wrong fields.

    Sizes are checked before the request is parsed: a request of millions of elements is refused without their objects.
    """

    def deserializer(self, method: Method, deserialize: Callable[[bytes], Request]) -> Callable[[bytes], Request]:
        """Return a deserializer that checks the sizes in a message before it parses the message."""
        if method.descriptor is None:
            return deserialize
        descriptor = method.descriptor.input_type
        max_bytes = MAX_STREAM_REQUEST_BYTES if method.response_streaming else math.inf

        def check_and_deserialize(data: bytes) -> Request:
            if len(data) > _SMALL_BYTES:
                if len(data) > max_bytes:
                    return _refused([FieldViolation("", f"must have at most {max_bytes} bytes")])
                if violations := size_violations(descriptor, data):
                    return _refused(violations)
            return deserialize(data)

        return check_and_deserialize

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its requests validated, and their UUIDs in lower case."""
        if not method.is_ours or method.descriptor is None:
            return call
        lower_ids = ids_in_lower_case(method.descriptor.input_type)

        def check(request: Message) -> None:
            if violations := violations_of(request):
                raise _invalid(violations)
            lower_ids(request)

        if method.request_streaming:
            return lambda requests, context: call(_each_checked(requests, check), context)

        # Not a coroutine function: that would be one coroutine more for every call.
        def validate(request: Request, context: Context) -> Coroutine[Any, Any, Message | bytes | None]:
            check(request)
            return call(request, context)

        return validate


def _refused(violations: list[FieldViolation]) -> Refused:
    return Refused(partial(_invalid, violations))


def _invalid(violations: list[FieldViolation]) -> InvalidField:
    # A violation without a field concerns the whole request.
    return InvalidField(violations, "" if violations[0].field else f"the request {violations[0].description}")


async def _each_checked(requests: AsyncIterator[Any], check: Callable[[Any], None]) -> AsyncIterator[Any]:
    async for request in requests:
        check(request)
        yield request
