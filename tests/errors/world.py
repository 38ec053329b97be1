"""What the examples of errors need: servers, and a way to say which example is of which reason."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.support.policies import Guarded
from tests.support.servers import OwnServer


@dataclass(frozen=True)
class World:
    """Servers for the examples.

    Attributes:
        own: a server that knows no callers, with a database that only the examples use.
        guarded: a server that knows its callers: `key:storefront`, which may read orders, and an issuer of tokens
            whose keys it cannot load.
    """

    own: OwnServer
    guarded: Guarded


# Makes a call that fails, so it raises what a client gets.
Example = Callable[[World], Awaitable[object]]
EXAMPLES: dict[str, Example] = {}


def example(reason: str) -> Callable[[Example], Example]:
    """Return a decorator for a coroutine that provokes the error of this reason."""

    def register(function: Example) -> Example:
        assert reason not in EXAMPLES, f"two examples of {reason}"
        EXAMPLES[reason] = function
        return function

    return register
