"""Refuses requests that break the `buf.validate` rules of their messages, and spells their UUIDs in one way."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message

from service.domain.errors import InvalidField
from service.rpc.interceptors.base import Interceptor
from service.rpc.messages.ids import Change, ids_in_lower_case
from service.rpc.messages.validation import violations_of
from service.rpc.methods import Call, Context, Method, Request


class ValidationInterceptor(Interceptor):
    """Refuses an invalid request with INVALID_FIELD, naming each wrong field."""

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its requests validated, and their UUIDs in lower case."""
        if not method.is_ours or method.descriptor is None:
            return call
        lower_ids = ids_in_lower_case(method.descriptor.input_type)

        async def validate(request: Request, context: Context) -> Message | bytes | None:
            if method.request_streaming:
                return await call(_each_valid(request, lower_ids), context)
            _require_valid(request)
            lower_ids(request)
            return await call(request, context)

        return validate


def _require_valid(request: Message) -> None:
    if violations := violations_of(request):
        raise InvalidField(violations)


async def _each_valid(requests: AsyncIterator[Any], lower_ids: Change) -> AsyncIterator[Any]:
    async for request in requests:
        _require_valid(request)
        lower_ids(request)
        yield request
