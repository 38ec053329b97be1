"""Exports: stream a whole list from one snapshot in constant memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from service.application.ports.errors import ExportStalled
from service.application.ports.queries import Page, PageOfRows, Row, Snapshot, Snapshots
from service.rpc.methods import Context
from service.rpc.signing.page_tokens import position
from service.runtime.loop_turns import LoopTurns

# Large enough that the overhead per message does not matter. A client that does not read makes the server hold a
# response four times: its messages, the response, its bytes, and the copy that gRPC has.
MAX_BATCH_BYTES = 256 * 1024
# The rate at which a client must read in the long run. Slower clients would keep the exports of others waiting.
MIN_BYTES_PER_SECOND = 256 * 1024
# How many messages are built in one turn of the event loop, for all exports together.
_BUILT_TOGETHER = 25
# The part of the time in which messages are built while several exports do.
_SHARE = 0.5
# The size of the tag and the length of a message in a response, for messages of less than 2 MB.
_FIELD_BYTES = 4

MessageT = TypeVar("MessageT", bound=Message)


class Exports:
    """Runs exports.

    Args:
        snapshots: opens snapshots; the limit on open snapshots also limits the number of concurrent exports.
        stall_seconds: seconds that an export may wait for its client: until it reads the next response, and altogether
            beyond the time that reading at the minimum rate takes.
        max_response_bytes: the maximum size of a response.
    """

    def __init__(self, snapshots: Snapshots, *, stall_seconds: float, max_response_bytes: int) -> None:
        self._snapshots = snapshots
        self._max_batch_bytes = min(MAX_BATCH_BYTES, max_response_bytes)
        self._stall_seconds = stall_seconds
        self._turns = LoopTurns(_SHARE)

    async def run(
        self,
        context: Context,
        read: Callable[[Snapshot, Page], Awaitable[PageOfRows]],
        *,
        keys: Sequence[str],
        message: Callable[[Row], MessageT],
        response: Callable[[Sequence[MessageT]], Message],
        page_rows: int,
    ) -> None:
        """Write a whole list to the stream.

        Args:
            context: the stream.
            read: returns a page of the list.
            keys: the attributes of a row that form its position in the list.
            message: builds the message of a row.
            response: builds a response of the stream from the messages of several rows.
            page_rows: the number of rows to read per page.

        Raises:
            Overloaded: too many exports are running.
            ExportStalled: the client stopped reading, or reads too slowly.
            StoreError: the database failed.
        """
        after = None
        patience = _Patience(self._stall_seconds)
        async with self._snapshots() as snapshot:
            while True:
                found = await read(snapshot, Page(page_rows, after, include_total_size=False))
                async for batch in self._batches(found.rows, message):
                    await patience.write(context, response(batch))
                if not found.has_more:
                    return
                after = position(found.rows[-1], keys)

    async def _batches(
        self, rows: Sequence[Row], message: Callable[[Row], MessageT]
    ) -> AsyncIterator[Sequence[MessageT]]:
        """Build the messages of a page, as many at a time as fit into a response."""
        batch: list[MessageT] = []
        size = 0
        for first in range(0, len(rows), _BUILT_TOGETHER):
            await self._turns.take()
            for built in [message(row) for row in rows[first : first + _BUILT_TOGETHER]]:
                length = built.ByteSize() + _FIELD_BYTES
                if batch and size + length > self._max_batch_bytes:
                    yield batch
                    batch, size = [], 0
                batch.append(built)
                size += length
        if batch:
            yield batch


class _Patience:
    """The time that an export may still wait for its client: waiting takes from it, and what the client reads adds.

    Only waiting counts: a slow database costs the client nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._most = self._left = seconds

    async def write(self, context: Context, message: Message) -> None:
        """Write a message when the client reads; raises ExportStalled."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                await context.write(message)
        except TimeoutError as error:
            raise ExportStalled from error
        left = self._left - (time.monotonic() - started) + message.ByteSize() / MIN_BYTES_PER_SECOND
        self._left = min(left, self._most)
