"""Refuses large responses to callers who do not read those that they have."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from service.application.ports.errors import Overloaded
from service.rpc.call_context import current_call
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request

# The part of the limit that one caller may use, so that a caller who reads nothing does not use all.
MAX_PART = 0.5
# Smaller responses are not counted: the limit on concurrent calls bounds their memory.
_SMALL_BYTES = 4 * 1024
# A response to a request for more items than this is not even built for callers who read nothing.
_MANY_ITEMS = 100


class UnreadResponsesInterceptor(Interceptor):
    """Refuses large responses while those that clients have not received are too large together.

    With a closed flow-control window (RFC 9113, section 5.2), a client can make any number of calls and let the server
    keep their responses until it cancels the calls. Only reads are refused: a write has happened by then. A stream of
    responses waits for its client by itself.

    A read that asks for many items is refused before it is done if its caller has just been refused a response, and has
    received none since.

    Args:
        max_bytes: the maximum size of all responses together that clients have not received yet. gRPC has a copy of
            each, so the memory is about twice as much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._bytes_of: Counter[str] = Counter()
        # Who has been refused a response, until they have received one.
        self._refused: set[str] = set()

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its large responses counted; itself if no response of it can be large."""
        if method.request_streaming or method.response_streaming or not method.is_ours or method.descriptor is None:
            return call
        if not _repeats(method.descriptor.output_type):
            return call
        reads = method.reads
        count_items = _item_counter(method.descriptor.input_type) if reads else None

        async def count_response(request: Request, context: Context) -> Message | bytes | None:
            response = await call(request, context)
            size = len(response) if isinstance(response, bytes) else 0
            if size > _SMALL_BYTES:
                self._count(size, refusing=reads)
            return response

        if count_items is None:
            return count_response

        # Not a coroutine function: that would be one coroutine more for every call.
        def refuse_or_count(request: Request, context: Context) -> Coroutine[Any, Any, Message | bytes | None]:
            if self._refused and count_items(request) > _MANY_ITEMS and current_call().caller.name in self._refused:
                raise Overloaded("unread_responses")
            return count_response(request, context)

        return refuse_or_count

    def _count(self, size: int, *, refusing: bool) -> None:
        """Count a response until its client has received it; raises Overloaded if it is too large for now."""
        caller = current_call().caller.name
        of_caller = self._bytes_of[caller]
        # One response is always allowed, however large responses may be.
        too_many = self._bytes and self._bytes + size > self._max_bytes
        too_many_of_caller = of_caller and of_caller + size > self._max_bytes * MAX_PART
        if refusing and (too_many or too_many_of_caller):
            if too_many_of_caller:
                self._refused.add(caller)
            raise Overloaded("unread_responses")
        # gRPC ends the task that handles the call once the response has been sent, or the client has disconnected. So
        # does the server when the client does not read it in time.
        task = asyncio.current_task()
        if task:
            self._bytes += size
            self._bytes_of[caller] += size
            task.add_done_callback(partial(self._free, caller, size))

    def _free(self, caller: str, size: int, _task: object) -> None:
        self._bytes -= size
        self._bytes_of[caller] -= size
        self._refused.discard(caller)
        if not self._bytes_of[caller]:
            # So that there is no entry for each caller that ever called.
            del self._bytes_of[caller]


def _repeats(message: Descriptor) -> bool:
    """Return whether a message has repeated fields, directly or in its messages, so that it can be large."""
    return any(field.is_repeated or (field.message_type and _repeats(field.message_type)) for field in message.fields)


def _item_counter(message: Descriptor) -> Callable[[Request], int] | None:
    """Return a function that returns for how many items a request asks; None if such requests ask for none.

    The request may be a mark that stands for one (`service.rpc.interceptors.deserialization`).
    """
    if "page_size" in message.fields_by_name:
        return lambda request: getattr(request, "page_size", 0)
    if "ids" in message.fields_by_name:
        return lambda request: len(getattr(request, "ids", ()))
    return None
