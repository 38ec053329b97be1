"""What others have written, as people read it."""

from __future__ import annotations


def plain(message: str) -> str:
    """Return the message of an error without what gRPC writes around the cause.

    >>> plain("connections to all backends failing; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused")
    'ipv4:127.0.0.1:1: Connection refused'
    """
    return message.rpartition("last error: ")[2].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")


def visible(text: str, *, lines: bool = False) -> str:
    """Return a text without characters that control a terminal, which others may have put into it."""
    kept = "\n" if lines else ""
    return "".join(char if char.isprintable() or char in kept else f"\\x{ord(char):02x}" for char in text)
