"""Password hashing."""

from typing import Protocol


class Passwords(Protocol):
    """Hashes and verifies passwords outside the event loop; `hash` and `verify` raise Overloaded.

    A password counts as the text that it shows: keyboards and systems write `é` as one character or as two.
    """

    async def hash(self, password: str) -> str:
        """Return a salted hash."""

    async def verify(self, password: str, password_hash: str | None, *, as_typed: bool = False) -> bool:
        """Return whether the password has this hash. For None it takes equally long and returns False.

        With `as_typed`, every character counts as it is: earlier releases made hashes of passwords in that form.
        """

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with parameters other than the current settings."""
