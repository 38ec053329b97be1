"""Builds few large responses at the same time, and none for callers who do not read those that they have."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
# Requests for more items than this take turns. A response with a thousand takes the event loop 5 to 10 ms, and while
# many are built, every other call waits for all of them several times.
_MANY_ITEMS = 100
_TURNS = 2
_MAX_WAIT_SECONDS = 5.0


class UnreadResponsesInterceptor(Interceptor):
    """Refuses large responses while those that clients have not received are too large together.

    With a closed flow-control window (RFC 9113, section 5.2), a client can make any number of calls and let the server
    keep their responses until it cancels the calls. Only reads are refused: a write has happened by then. A stream of
    responses waits for its client by itself.

    Reads that ask for many items are done a few at a time. When it is the turn of one whose caller has just been
    refused a response, and has received none since, it is refused before its response is built.

    Args:
        max_bytes: the maximum size of all responses together that clients have not received yet. gRPC has a copy of
            each, so the memory is about twice as much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._bytes_of: Counter[str] = Counter()
        self._turns = asyncio.Semaphore(_TURNS)
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

        async def take_turn(request: Request, context: Context) -> Message | bytes | None:
            async with self._turn():
                return await count_response(request, context)

        # Not a coroutine function: that would be one coroutine more for every call.
        return lambda request, context: (take_turn if count_items(request) > _MANY_ITEMS else count_response)(
            request, context
        )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn to build a large response; raises Overloaded if there is none, or no use in it."""
        try:
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise Overloaded from None
        try:
            if current_call().caller.name in self._refused:
                raise Overloaded
            yield
        finally:
            self._turns.release()

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
            raise Overloaded
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
