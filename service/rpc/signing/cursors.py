"""Cursors of watches: signed event positions."""

import hashlib
import hmac
import struct
from collections.abc import Sequence

from service.application.ports.events import EventPosition
from service.domain.errors import InvalidCursor
from service.rpc.call_context import current_caller
from service.rpc.identity.caller import ANONYMOUS
from service.rpc.signing.base64url import decode_base64url, encode_base64url

_POSITION = struct.Struct(">QQqIQ")
# A cursor of an earlier release has only these.
_XID_AND_POSITION = struct.Struct(">QQ")
_MAC_BYTES = 16


class Cursors:
    """Writes and reads the cursors of one service, signed with a secret key.

    A cursor is valid only for the caller to whom it was issued. Unlike page tokens, cursors do not depend on the
    filters of a request: a position refers to the whole event log.

    Args:
        key: the secret with which they are signed.
        service: whose events they refer to.
        accepted_keys: other secrets whose cursors are valid too.
    """

    def __init__(self, key: bytes, service: str, accepted_keys: Sequence[bytes] = ()) -> None:
        self._key = key
        self._keys = (key, *accepted_keys)
        self._service = f"cursor\0{service}".encode()
        # Those of callers without an identity are signed as in earlier releases.
        self._anonymous = hashlib.sha256(self._service).digest()

    def write(self, position: EventPosition) -> str:
        """Return the cursor for a position."""
        payload = _POSITION.pack(*position)
        return encode_base64url(self._mac(self._key, payload) + payload)

    def read(self, cursor: str) -> EventPosition:
        """Return the position of a cursor; raises InvalidCursor."""
        data = decode_base64url(cursor)
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, self._mac(key, payload)) for key in self._keys):
            raise InvalidCursor.at("cursor", "was not issued by this service; send the cursor of a response unchanged")
        form = _XID_AND_POSITION if len(payload) == _XID_AND_POSITION.size else _POSITION
        return EventPosition(*form.unpack(payload))

    def _mac(self, key: bytes, payload: bytes) -> bytes:
        return hmac.digest(key, self._scope() + payload, hashlib.sha256)[:_MAC_BYTES]

    def _scope(self) -> bytes:
        # Has a fixed length, and differs from all input that page tokens sign with the same key.
        caller = current_caller()
        if caller is ANONYMOUS:
            return self._anonymous
        return hashlib.sha256(self._service + b"\0" + caller.scope.encode()).digest()
