"""Page tokens (AIP-158): signed keyset positions, each valid for one caller, one method and one set of arguments."""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.message import Message

from service.application.ports.queries import MAX_PAGE_BYTES, Page, PageOfRows, Row
from service.domain.errors import InvalidPageToken
from service.rpc.call_context import current_caller
from service.rpc.identity.caller import ANONYMOUS
from service.rpc.messages.values import time_of
from service.rpc.signing.base64url import decode_base64url, encode_base64url

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_MAC_BYTES = 16
# Room for the page token and the total size in a response.
_OTHER_BYTES = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# One value of a position. The position of a page's last row consists of the row's values in the sort columns.
_Key = datetime | UUID | str | int | float


class PageTokens:
    """Writes and reads page tokens.

    Args:
        key: the secret with which they are signed.
        max_response_bytes: the maximum size of a response with a page.
        accepted_keys: other secrets whose tokens are valid too.
    """

    def __init__(
        self, key: bytes, max_response_bytes: int = MAX_PAGE_BYTES, accepted_keys: Sequence[bytes] = ()
    ) -> None:
        self._key = key
        self._keys = (key, *accepted_keys)
        self._max_page_bytes = max_response_bytes - _OTHER_BYTES

    def page(self, request: Any) -> Page:  # noqa: ANN401 - any list request; messages share no class
        """Return the page of the list that a request asks for.

        Raises:
            InvalidPageToken: the token is damaged, forged, or was issued for other arguments.
        """
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = self._read(request.page_token, request) if request.page_token else None
        return Page(size, after, request.include_total_size, self._max_page_bytes)

    def next(self, request: Message, found: PageOfRows, keys: Sequence[str]) -> str:
        """Return the token for the next page of a list ordered by the attributes `keys`; empty after the last page."""
        if not found.has_more:
            return ""
        last = position(found.rows[-1], keys)
        payload = orjson.dumps([_encode(key) for key in last])
        return encode_base64url(_mac(self._key, payload, _list_of(request)) + payload)

    def _read(self, token: str, request: Message) -> tuple[_Key, ...]:
        data = decode_base64url(token)
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        listed = _list_of(request)
        if not any(hmac.compare_digest(mac, _mac(key, payload, listed)) for key in self._keys):
            what = "was not issued for this list; send next_page_token unchanged, with all other arguments as before"
            raise InvalidPageToken.at("page_token", what)
        return tuple(_decode(key) for key in orjson.loads(payload))


def position(row: Row, keys: Sequence[str]) -> tuple[_Key, ...]:
    """Return the values of a row's attributes `keys`, with the types of the list's sort columns."""
    return tuple(time_of(getattr(row, key)) if key.endswith("_time") else getattr(row, key) for key in keys)


def _list_of(request: Message) -> bytes:
    """Return a digest of what a token is valid for: the caller, the method, and the arguments."""
    # The token is valid only with the same arguments, except these two.
    arguments = type(request)()
    arguments.CopyFrom(request)
    arguments.ClearField("page_size")
    arguments.ClearField("page_token")
    listed = f"{request.DESCRIPTOR.full_name}\0".encode() + arguments.SerializeToString(deterministic=True)
    caller = current_caller()
    if caller is not ANONYMOUS:
        # The name of a message never begins like this, so a caller cannot choose arguments that give another's.
        listed = b"caller\0" + hashlib.sha256(caller.scope.encode()).digest() + listed
    return hashlib.sha256(listed).digest()


def _mac(key: bytes, payload: bytes, listed: bytes) -> bytes:
    # The digest has a fixed length, so the boundary between the two inputs cannot be moved.
    return hmac.digest(key, listed + payload, hashlib.sha256)[:_MAC_BYTES]


def _encode(key: _Key) -> list[str | int | float]:
    if isinstance(key, datetime):
        return ["t", (key - _EPOCH) // timedelta(microseconds=1)]
    # `isinstance`, because asyncpg returns a subclass of UUID.
    return ["u", str(key)] if isinstance(key, UUID) else ["v", key]


def _decode(encoded: list[Any]) -> _Key:
    kind, value = encoded
    if kind == "t":
        return time_of(value)
    key: _Key = UUID(value) if kind == "u" else value
    return key
