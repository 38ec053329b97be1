"""Finds out who makes a call, and refuses it if nobody is known."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from google.protobuf.message import Message

from service.rpc.call_context import current_call
from service.rpc.identity.caller import Caller
from service.rpc.identity.identities import ON_BEHALF_OF, Identities, end_user_of
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request

# The path of a method, and a caller; raises an error if the caller may not act for users.
RequireActForUsers = Callable[[str, Caller], None]
# How often the credential of a stream is verified again.
RECHECK_SECONDS = 10.0


class AuthenticationInterceptor(Interceptor):
    """Sets the caller of each call.

    A stream can last longer than its credential is valid, so it is verified again while the stream runs.

    Args:
        identities: the kinds of identity that are configured; None if there are none, and every caller is anonymous.
        require_act_for_users: raises PermissionMissing for a caller that may not act for users.
        open_services: how the paths of methods begin that need no caller.
    """

    def __init__(
        self,
        identities: Identities | None,
        require_act_for_users: RequireActForUsers,
        open_services: Sequence[str],
    ) -> None:
        self._identities = identities
        self._require_act_for_users = require_act_for_users
        self._open_services = tuple(open_services)

    def wrap(self, method: Method, call: Call) -> Call:
        """Wrap the method to set its caller; return it unchanged if its caller does not matter."""
        identities = self._identities
        if identities is None or method.path.startswith(self._open_services):
            return call
        path = method.path

        async def identify(context: Context) -> None:
            current = current_call()
            # Set before anything else is refused, for the access log.
            caller = current.caller = await identities.caller(current.metadata, context)
            if (sent := current.metadata.get(ON_BEHALF_OF)) is not None:
                user_id = end_user_of(caller, sent)
                # Otherwise, the token of the user says the same.
                if caller.end_user is None:
                    self._require_act_for_users(path, caller)
                    current.caller = Caller(caller.name, user_id)

        async def identify_and_call(request: Request, context: Context) -> Message | bytes | None:
            await identify(context)
            return await call(request, context)

        # Not a coroutine function: that would be one coroutine more for every call.
        def authenticate(request: Request, context: Context) -> Coroutine[Any, Any, Message | bytes | None]:
            current = current_call()
            metadata = current.metadata
            caller = None if ON_BEHALF_OF in metadata else identities.known(metadata, context)
            if caller is None:
                return identify_and_call(request, context)
            current.caller = caller
            return call(request, context)

        async def authenticate_repeatedly(request: Request, context: Context) -> Message | bytes | None:
            await identify(context)
            return await _while_valid(call(request, context), lambda: identify(context))

        return authenticate_repeatedly if method.response_streaming or method.request_streaming else authenticate


async def _while_valid(
    stream: Coroutine[Any, Any, Message | bytes | None], verify: Callable[[], Awaitable[None]]
) -> Message | bytes | None:
    """Run a stream, and end it with the error that `verify` raises."""
    running = asyncio.create_task(stream)
    try:
        while True:
            done, _ = await asyncio.wait([running], timeout=RECHECK_SECONDS)
            if done:
                return running.result()
            await verify()
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait([running])
        if not running.cancelled():
            # If the call ends for another reason, asyncio would log that nobody has asked for the error.
            running.exception()
