"""Signed cursors of watches."""

import hashlib
import hmac
import struct

from service.application.ports.events import EventPosition
from service.domain.errors import InvalidCursor
from service.rpc.signing.base64url import decode_base64url, encode_base64url

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

    def write(self, place: EventPosition) -> str:
        """Return the cursor of a place."""
        payload = _PLACE.pack(*place)
        return encode_base64url(self._mac(payload) + payload)

    def read(self, cursor: str) -> EventPosition:
        """Return the place of a cursor; raises InvalidCursor."""
        data = decode_base64url(cursor)
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise InvalidCursor.at("cursor", "was not issued by this service; send the cursor of a response unchanged")
        return EventPosition(*_PLACE.unpack(payload))

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, self._scope + payload, hashlib.sha256)[:_MAC_BYTES]
