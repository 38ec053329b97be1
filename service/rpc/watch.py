"""Watches: events as a stream of responses, each with the cursor to go on from."""

import hashlib
import hmac
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from service.application.ports import EventFeed, Place, PlaceSwept, Row
from service.domain.errors import CursorExpired, InvalidCursor, ServerDraining, SlowConsumer
from service.rpc.opaque import from_text, to_text

_PLACE = struct.Struct(">QQ")
_MAC_BYTES = 16


class Cursors:
    """Makes and reads the cursors of one service with one secret key: places that only it can have given out.

    Unlike page tokens they name no filters: a place is one in all events.
    """

    def __init__(self, key: bytes, service: str) -> None:
        self._key = key
        # Of a fixed length, and of another kind than what page tokens are made from.
        self._scope = hashlib.sha256(f"cursor\0{service}".encode()).digest()

    def write(self, place: Place) -> str:
        """Return the cursor of a place."""
        payload = _PLACE.pack(*place)
        return to_text(self._mac(payload) + payload)

    def read(self, cursor: str) -> Place:
        """Return the place of a cursor; raises InvalidCursor."""
        data = from_text(cursor)
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise InvalidCursor.at("cursor", "was not given out by this service: send one of a response unchanged")
        return Place(*_PLACE.unpack(payload))

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, self._scope + payload, hashlib.sha256)[:_MAC_BYTES]


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
        except PlaceSwept as error:
            metadata = {"earliest_cursor": self._cursors.write(error.earliest)}
            raise CursorExpired("events after this cursor are no longer kept", metadata) from error
        except (SlowConsumer, ServerDraining) as error:
            error.metadata["cursor"] = cursor
            raise

    async def _start(self, request: Any) -> Place:  # noqa: ANN401 - as above
        match request.WhichOneof("start"):
            case "cursor":
                return self._cursors.read(request.cursor)
            case "earliest":
                return await self._feed.earliest()
            case _:
                return await self._feed.latest()
