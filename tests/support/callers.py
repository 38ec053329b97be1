"""Calls of a caller, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.rpc.call_context import CallContext, enter, leave
from service.rpc.identity.caller import Caller


@contextmanager
def called_by(caller: Caller) -> Iterator[None]:
    """Run the block as if in a call of this caller."""
    call = CallContext("call-1", {})
    call.caller = caller
    token = enter(call)
    try:
        yield
    finally:
        leave(token)
