"""Password hashing."""

from typing import Protocol


class Passwords(Protocol):
    """Hashes and checks passwords off the event loop; every method raises Overloaded."""

    async def hash(self, password: str) -> str:
        """Return a salted hash."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether the password has this hash; None takes as long and is False."""

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with other parameters than are set now."""
