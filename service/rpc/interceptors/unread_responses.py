"""Refuses large answers to callers who do not read those that they have."""

import asyncio
from collections import Counter
from functools import partial

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


class UnreadResponsesInterceptor(Interceptor):
    """Refuses large responses while those that clients have not received are too large together.

    With a closed flow-control window (RFC 9113, section 5.2), a client can make any number of calls and let the server
    keep their responses for as long as the connection lasts. Only reads are refused: a write has happened by then. A
    stream of responses waits for its client by itself.

    Args:
        max_bytes: the maximum size of all responses together that clients have not received yet. gRPC has a copy of
            each, so the memory is about twice as much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._bytes_of: Counter[str] = Counter()

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its large responses counted; itself if no response of it can be large."""
        if method.request_streaming or method.response_streaming or not method.is_ours or method.descriptor is None:
            return call
        if not _repeats(method.descriptor.output_type):
            return call
        reads = method.reads

        async def count_response(request: Request, context: Context) -> Message | bytes | None:
            response = await call(request, context)
            size = len(response) if isinstance(response, bytes) else 0
            if size > _SMALL_BYTES:
                self._count(size, refusing=reads)
            return response

        return count_response

    def _count(self, size: int, *, refusing: bool) -> None:
        """Count a response until its client has received it; raises Overloaded if it is too large for now."""
        caller = current_call().caller.name
        of_caller = self._bytes_of[caller]
        # One response is always allowed, however large responses may be.
        too_many = self._bytes and self._bytes + size > self._max_bytes
        too_many_of_caller = of_caller and of_caller + size > self._max_bytes * MAX_PART
        if refusing and (too_many or too_many_of_caller):
            raise Overloaded
        # gRPC ends the task that handles the call once the response has been sent, or the client has disconnected.
        task = asyncio.current_task()
        if task:
            self._bytes += size
            self._bytes_of[caller] += size
            task.add_done_callback(partial(self._free, caller, size))

    def _free(self, caller: str, size: int, _task: object) -> None:
        self._bytes -= size
        self._bytes_of[caller] -= size
        if not self._bytes_of[caller]:
            # So that there is no entry for each caller that ever called.
            del self._bytes_of[caller]


def _repeats(message: Descriptor) -> bool:
    """Return whether a message has repeated fields, directly or in its messages, so that it can be large."""
    return any(field.is_repeated or (field.message_type and _repeats(field.message_type)) for field in message.fields)
