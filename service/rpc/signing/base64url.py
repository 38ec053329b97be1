"""Bytes as text that callers hand back unchanged: page tokens and cursors."""

import base64
import binascii


def encode_base64url(data: bytes) -> str:
    """Return the text of some bytes, in letters that need no escaping in a URL."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_base64url(text: str) -> bytes:
    """Return the bytes of a text, none if `encode_base64url` did not make it.

    Base64 reads many texts as the same bytes; only the one that was given out counts.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
    return data if encode_base64url(data) == text else b""
