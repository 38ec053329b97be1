"""Watches: streams of events, each with a cursor from which a later watch continues."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from service.application.ports.events import EventFeed, EventPosition, EventPositionExpired
from service.application.ports.queries import Row
from service.domain.errors import CursorExpired, ServerDraining, SlowConsumer
from service.rpc.retry import retried
from service.rpc.signing.cursors import Cursors
from service.runtime.deadline import no_deadline


class _Response(Protocol):
    @property
    def cursor(self) -> str: ...


_Event = tuple[EventPosition, Row | None]
ResponseT = TypeVar("ResponseT", bound=_Response)


async def _chained(first: _Event, others: AsyncGenerator[_Event, None]) -> AsyncGenerator[_Event, None]:
    yield first
    async for other in others:
        yield other


class Watch(Generic[ResponseT]):
    """Answers the watches of one service.

    Args:
        feed: the event feed.
        cursors: writes and reads the cursors of the service.
        response: builds the response from an event, or None for a checkpoint, and a cursor.
    """

    def __init__(self, feed: EventFeed, cursors: Cursors, response: Callable[[Row | None, str], ResponseT]) -> None:
        self._feed = feed
        self._cursors = cursors
        self._response = response

    async def __call__(self, request: Any, wanted: Callable[[Row], bool]) -> AsyncGenerator[ResponseT, None]:  # noqa: ANN401 - any watch request; messages share no class
        """Yield responses until an error ends the watch.

        Raises:
            Overloaded: there are too many watches.
            InvalidCursor: this service did not issue the cursor.
            CursorExpired: events after the cursor have been deleted, or the database was restored since; the metadata
                has the first cursor that works.
            SlowConsumer, ServerDraining: the metadata has the cursor of the last response.
        """
        cursor = request.cursor
        try:
            with self._feed.watching():
                first, events = await retried(
                    lambda: self._begin(request, wanted), no_deadline, outcome_known_by_repeating=True
                )
                async with aclosing(events):
                    async for position, event in _chained(first, events):
                        response = self._response(event, self._cursors.write(position))
                        yield response
                        cursor = response.cursor
        except EventPositionExpired as error:
            metadata = {"earliest_cursor": self._cursors.write(error.earliest)}
            raise CursorExpired(
                "events after this cursor have been deleted, or the database was restored since; watch from the"
                " earliest_cursor in the metadata",
                metadata,
            ) from error
        except (SlowConsumer, ServerDraining) as error:
            error.metadata["cursor"] = cursor
            raise

    async def _begin(self, request: Any, wanted: Callable[[Row], bool]) -> tuple[_Event, AsyncGenerator[_Event, None]]:  # noqa: ANN401 - as above
        """Return the first event or checkpoint, and the generator of the others."""
        events = self._feed.follow(await self._start_position(request), wanted)
        try:
            return await anext(events), events
        except BaseException:
            await events.aclose()
            raise

    async def _start_position(self, request: Any) -> EventPosition:  # noqa: ANN401 - as above
        match request.WhichOneof("start"):
            case "cursor":
                return self._cursors.read(request.cursor)
            case "earliest":
                return await self._feed.earliest()
            case _:
                return await self._feed.latest()
