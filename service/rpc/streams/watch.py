"""Watches: events as a stream of responses, each with the cursor to go on from."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from service.application.ports.events import EventFeed, EventPosition, EventPositionExpired
from service.application.ports.queries import Row
from service.domain.errors import CursorExpired, ServerDraining, SlowConsumer
from service.rpc.signing.cursors import Cursors


class _Response(Protocol):
    @property
    def cursor(self) -> str: ...


ResponseT = TypeVar("ResponseT", bound=_Response)


class Watch(Generic[ResponseT]):
    """Answers the watches of one service.

    Args:
        feed: the events.
        cursors: makes and reads the service's cursors.
        response: makes a response of an event, or None, and a cursor.
    """

    def __init__(self, feed: EventFeed, cursors: Cursors, response: Callable[[Row | None, str], ResponseT]) -> None:
        self._feed = feed
        self._cursors = cursors
        self._response = response

    async def __call__(self, request: Any, wanted: Callable[[Row], bool]) -> AsyncGenerator[ResponseT, None]:  # noqa: ANN401 - any watch request; messages share no class
        """Yield the responses to a request, until an error ends them.

        Raises:
            InvalidCursor, CursorExpired
            SlowConsumer, ServerDraining: with the cursor of the last response in the metadata.
        """
        cursor = request.cursor
        try:
            async with aclosing(self._feed.follow(await self._start(request), wanted)) as places:
                async for place, event in places:
                    response = self._response(event, self._cursors.write(place))
                    yield response
                    cursor = response.cursor
        except EventPositionExpired as error:
            metadata = {"earliest_cursor": self._cursors.write(error.earliest)}
            raise CursorExpired(
                "events after this cursor have been deleted; the first cursor that works is earliest_cursor", metadata
            ) from error
        except (SlowConsumer, ServerDraining) as error:
            error.metadata["cursor"] = cursor
            raise

    async def _start(self, request: Any) -> EventPosition:  # noqa: ANN401 - as above
        match request.WhichOneof("start"):
            case "cursor":
                return self._cursors.read(request.cursor)
            case "earliest":
                return await self._feed.earliest()
            case _:
                return await self._feed.latest()
