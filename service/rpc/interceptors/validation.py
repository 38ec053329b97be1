"""Holds requests to the `buf.validate` rules of their messages."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from service.domain.errors import FieldViolation, InvalidField
from service.rpc.interceptors.base import Call, Context, Interceptor, Method, Request


class ValidationInterceptor(Interceptor):
    """Refuses a request that breaks a rule, naming each wrong field."""

    def __init__(self) -> None:
        self._validator = Validator()

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its requests checked."""
        if not method.is_ours:
            return call

        async def validate(request: Request, context: Context) -> Message | bytes | None:
            if method.request_streaming:
                return await call(self._each_valid(request), context)
            self._require_valid(request)
            return await call(request, context)

        return validate

    def _require_valid(self, request: Message) -> None:
        if violations := self._validator.collect_violations(request):
            raise InvalidField(map(field_violation, violations))

    async def _each_valid(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self._require_valid(request)
            yield request


def field_violation(violation: Violation) -> FieldViolation:
    """Return which field breaks a rule, by its path in the message that was checked."""
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}"
        if element.subscript:
            path += f"[{element.subscript.value}]"
    # The rule's name in the form that google.rpc wants, for example STRING_MAX_LEN.
    rule = (proto.rule_id or "").upper().replace(".", "_")
    return FieldViolation(path.lstrip("."), proto.message or "is wrong", rule)
