"""Bytes as text that callers hand back unchanged: page tokens and cursors."""

import base64
import binascii


def to_text(data: bytes) -> str:
    """Return the text of some bytes, in letters that need no escaping in a URL."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_text(text: str) -> bytes:
    """Return the bytes of a text, none if `to_text` did not make it.

    Base64 reads many texts as the same bytes; only the one that was given out counts.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
    return data if to_text(data) == text else b""
