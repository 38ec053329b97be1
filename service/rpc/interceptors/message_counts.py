"""Counts the messages of streams."""

from collections.abc import AsyncIterator
from typing import Any, cast

from google.protobuf.message import Message

from service.observability.metrics.calls import Calls, MethodCalls
from service.rpc.interceptors.base import Interceptor
from service.rpc.interceptors.checked_context import CheckedContext
from service.rpc.methods import Call, Context, Method, Request


class MessageCountsInterceptor(Interceptor):
    """Counts the requests and responses of streams; unary calls have one of each, and are returned unchanged.

    Args:
        calls: the counts of calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method if it streams."""
        streams = {"request_streaming": method.request_streaming, "response_streaming": method.response_streaming}
        counts = self._calls.add(method.path, **streams)
        if not (method.request_streaming or method.response_streaming):
            return call

        async def count_sent(_response: Message | bytes) -> None:
            counts.sent += 1

        async def count(request: Request, context: Context) -> Message | bytes | None:
            if method.response_streaming:
                context = cast("Context", CheckedContext(context, count_sent))
            return await call(_counted(request, counts) if method.request_streaming else request, context)

        return count


async def _counted(requests: AsyncIterator[Any], counts: MethodCalls) -> AsyncIterator[Any]:
    async for request in requests:
        counts.received += 1
        yield request
