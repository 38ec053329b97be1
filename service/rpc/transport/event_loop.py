"""The event loop of a server: uvloop's, woken once for all that gRPC has to tell it.

For each event, of which a call has four, a thread of gRPC writes a byte into a socket. `grpc.aio` takes all events that
there are when it has read one byte, and reads the others one by one, in turns of the loop with nothing to do. Here they
are read together: with 64 calls in flight the loop turns 0.13 times for a GetUser instead of 3.9 times. (CPU for
GetUser: 0.94 of that with uvloop's own loop, for ConfirmOrder 0.98.)

How gRPC wakes a loop is its own affair, so this is for those of its releases with which the tests have shown it; with
others, or with several listeners, the loop is uvloop's own.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVarTuple

import uvloop
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.rpc.transport.accepting import Accept, uses_private_interface

_private: Any = cygrpc
_Args = TypeVarTuple("_Args")
# Bytes to read at once. What is left is read in the next turn.
_MOST = 4096


class EventLoop(uvloop.Loop):
    """uvloop's event loop, but for how it reads what gRPC wakes it with."""

    def add_reader(self, fd: Any, callback: Callable[[*_Args], Any], *args: *_Args) -> None:  # noqa: ANN401 - a file
        """Call back when there is something to read."""
        if _is_grpcs(callback) and isinstance(fd, socket.socket):
            super().add_reader(fd, _read_all, fd, callback, *args)
        else:
            super().add_reader(fd, callback, *args)


def new_event_loop(accept: Accept) -> asyncio.AbstractEventLoop:
    """Return a loop for a server that takes calls in this way."""
    return EventLoop() if uses_private_interface(accept) else uvloop.new_event_loop()


def _is_grpcs(callback: Callable[..., Any]) -> bool:
    function = callback.func if isinstance(callback, partial) else callback
    return isinstance(getattr(function, "__self__", None), _private.PollerCompletionQueue)


def _read_all(events: socket.socket, callback: Callable[[*_Args], Any], *args: *_Args) -> None:
    """Read all bytes but one, which gRPC reads itself."""
    waiting = len(events.recv(_MOST, socket.MSG_PEEK))
    if waiting > 1:
        events.recv(waiting - 1)
    callback(*args)
