"""Password hashing."""

from typing import Protocol


class Passwords(Protocol):
    """Hashes and verifies passwords outside the event loop; `hash` and `verify` raise Overloaded."""

    async def hash(self, password: str) -> str:
        """Return a salted hash."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether the password has this hash. For None it takes equally long and returns False."""

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with parameters other than the current settings."""
