"""Text encoding of page tokens and cursors: base64url without padding."""

import base64
import binascii


def encode_base64url(data: bytes) -> str:
    """Encode bytes as text that needs no escaping in a URL."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_base64url(text: str) -> bytes:
    """Decode text; return empty bytes if `encode_base64url` cannot have returned this text.

    Several base64 texts decode to the same bytes. Only the text that was issued is accepted.
    """
    try:
        # Padding beyond what is needed is ignored.
        data = base64.urlsafe_b64decode(text + "==")
    except (binascii.Error, ValueError):
        return b""
    return data if encode_base64url(data) == text else b""
