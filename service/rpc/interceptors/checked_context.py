"""A context that checks each response of a stream before it is sent."""

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from service.rpc.methods import Context

# Raises an error if a response must not be sent.
Check = Callable[[Message | bytes], Awaitable[None]]


class CheckedContext:
    """The context of a call, except that a response is checked when it is written."""

    def __init__(self, context: Context, check: Check) -> None:
        self._context = context
        self._check = check

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the attributes of the context
        return getattr(self._context, name)

    async def write(self, response: Message | bytes) -> None:
        """Send a response; raises the error of the check, and sends nothing then."""
        await self._check(response)
        await self._context.write(response)
