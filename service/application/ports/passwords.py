"""Password hashing."""

from typing import Protocol


class Passwords(Protocol):
    """Hashes and verifies passwords outside the event loop.

    A password counts as the text that it shows: keyboards and systems write `é` as one character or as two.

    `hash` and `verify` raise Overloaded if too many callers wait, and DeadlineExceeded if the call has no time left
    when its turn comes.
    """

    async def hash(self, password: str, *, background: bool = False) -> str:
        """Return a salted hash.

        With `background`, all callers without it come first; it waits as long as that takes, and is never Overloaded.
        """

    async def verify(self, password: str, password_hash: str | None, *, as_typed: bool = False) -> bool:
        """Return whether the password has this hash. For None it takes equally long and returns False.

        With `as_typed`, every character counts as it is: earlier releases made hashes of passwords in that form.
        """

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with parameters other than the current settings."""
