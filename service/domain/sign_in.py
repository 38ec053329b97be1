"""How long sign-ins have to wait after others without success.

The schedule is that of Amazon Cognito: a few attempts without a pause, then pauses that double up to a maximum
(https://docs.aws.amazon.com/cognito/latest/developerguide/authentication.html, "Lockout behavior for failed sign-in
attempts"). Devices that have signed in before are limited by themselves, as OWASP's "Slow Down Online Guessing Attacks
with Device Cookies" describes (https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies).
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who tries to sign in, as far as the limit for attempts is concerned.

    Attributes:
        login_kind: `email` or `username`.
        login: the e-mail address or username, folded, whether or not a user has it.
        caller: the name of the client that makes the call.
        device: the id of a device on which this login has signed in before; None for any other.
    """

    login_kind: str
    login: str
    caller: str
    device: bytes | None = None

    def limited_as(self) -> bytes:
        """Return what distinguishes the attempts that are counted together: all devices of a caller, or one device."""
        who = ("caller", self.caller) if self.device is None else ("device", self.device.hex())
        # A login can contain any character but control characters.
        return "\0".join((*who, self.login_kind, self.login)).encode()


def sign_in_delays(free_attempts: int, max_delay: float) -> Sequence[float]:
    """Return the pause in seconds after the first attempt without success, after the second, and so on.

    After further attempts, the pause is the last one, which is `max_delay`.

    Args:
        free_attempts: how many attempts can be made without a pause between them, at least 1.
        max_delay: the longest pause in seconds.

    >>> sign_in_delays(3, 5)
    [0.0, 0.0, 1.0, 2.0, 4.0, 5.0]
    """
    delays = [0.0] * (free_attempts - 1)
    delay = 1.0
    while delay < max_delay:
        delays.append(delay)
        delay *= 2
    return [*delays, float(max_delay)]


def forget_seconds(delays: Sequence[float]) -> float:
    """Return the seconds without an attempt after which those before no longer count.

    It is so long that to wait for it is no way to make more attempts: in the long run, there is at most one in the
    longest pause.

    >>> forget_seconds([0.0, 0.0, 1.0, 2.0, 4.0, 5.0])
    30.0
    """
    return len(delays) * delays[-1]
