"""Exports: stream a whole list from one snapshot in constant memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from service.application.ports.errors import ExportStalled
from service.application.ports.queries import Page, PageOfRows, Row, Snapshot, Snapshots
from service.rpc.methods import Context
from service.rpc.signing.page_tokens import position

# Large enough that the overhead per message does not matter, and far below the 4 MiB that clients accept.
MAX_BATCH_BYTES = 1 << 20
# The size of the tag and the length of a message in a response, for messages of less than 2 MB.
_FIELD_BYTES = 4

MessageT = TypeVar("MessageT", bound=Message)


class Exports:
    """Runs exports.

    Args:
        snapshots: opens snapshots; the limit on open snapshots also limits the number of concurrent exports.
        stall_seconds: seconds after which an export is ended if its client reads nothing.
        max_response_bytes: the maximum size of a response.
    """

    def __init__(self, snapshots: Snapshots, *, stall_seconds: float, max_response_bytes: int) -> None:
        self._snapshots = snapshots
        self._max_batch_bytes = min(MAX_BATCH_BYTES, max_response_bytes)
        self._stall_seconds = stall_seconds

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
            ExportStalled: the client stopped reading.
            StoreError: the database failed.
        """
        after = None
        async with self._snapshots() as snapshot:
            while True:
                found = await read(snapshot, Page(page_rows, after, include_total_size=False))
                for batch in _batches(map(message, found.rows), self._max_batch_bytes):
                    await self._write(context, response(batch))
                if not found.has_more:
                    return
                after = position(found.rows[-1], keys)

    async def _write(self, context: Context, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await context.write(message)
        except TimeoutError as error:
            raise ExportStalled from error


def _batches(messages: Iterable[MessageT], max_bytes: int) -> Iterator[list[MessageT]]:
    batch: list[MessageT] = []
    size = 0
    for message in messages:
        length = message.ByteSize() + _FIELD_BYTES
        if batch and size + length > max_bytes:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += length
    if batch:
        yield batch
