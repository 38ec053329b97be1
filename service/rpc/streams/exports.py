"""Exports: a whole list as a stream, in constant memory however long it is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from service.application.ports.errors import ExportStalled
from service.application.ports.queries import Page, PageOfRows, Row, Snapshot, Snapshots
from service.rpc.methods import Context
from service.rpc.signing.page_tokens import position

# Large enough that the cost of a message does not matter, and far below what callers accept (4 MiB).
MAX_BATCH_BYTES = 1 << 20

MessageT = TypeVar("MessageT", bound=Message)


class Exports:
    """Runs exports.

    Args:
        snapshots: opens snapshots; their number is that of the exports that can run at once.
        stall_seconds: time after which a caller that reads nothing is cut off.
    """

    def __init__(self, snapshots: Snapshots, *, stall_seconds: float) -> None:
        self._snapshots = snapshots
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
            keys: the attributes of a row that make its position in the list.
            message: makes a row's message.
            response: makes a message of the stream from some of these.
            page_rows: rows to read at once.

        Raises:
            Overloaded: too many exports run already.
            ExportStalled: the caller stopped reading.
            StoreError: the database failed.
        """
        after = None
        async with self._snapshots() as snapshot:
            while True:
                found = await read(snapshot, Page(page_rows, after, include_total_size=False))
                for batch in _batches(map(message, found.rows)):
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


def _batches(messages: Iterable[MessageT]) -> Iterator[list[MessageT]]:
    batch: list[MessageT] = []
    size = 0
    for message in messages:
        length = message.ByteSize()
        if batch and size + length > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += length
    if batch:
        yield batch
