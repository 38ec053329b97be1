"""Attempts to sign in, which are counted over all processes of the service."""

from dataclasses import dataclass
from typing import Protocol

from service.domain.sign_in import SignIn


@dataclass(frozen=True, slots=True)
class CountedAttempt:
    """An attempt that has been counted: under which number of the table, and as which one without success in a row."""

    slot: int
    number: int


class SignInAttempts(Protocol):
    """Counts attempts to sign in before their password is checked; every method commits, and raises StoreError.

    Known and unknown logins are counted in the same way, so that the limit does not tell whether a user exists.
    """

    async def begin(self, sign_in: SignIn) -> CountedAttempt | None:
        """Count an attempt as one without success; None if there is no limit.

        Raises:
            SignInLimited: the pause after an earlier attempt is not over. This attempt is not counted.
        """

    async def succeeded(self, attempt: CountedAttempt | None) -> None:
        """Forget this attempt and those before it."""

    async def undo(self, attempt: CountedAttempt | None) -> None:
        """Do not count an attempt whose password was not checked."""
