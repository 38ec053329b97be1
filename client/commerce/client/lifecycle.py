"""What ends the use of a client: that it is closed, or that its process was forked.

A forked child has the parent's memory, but none of its threads, without which gRPC waits forever. gRPC can prepare for
a fork, if it is told so before it is first imported, and if no call runs at that moment. It cannot if the parent has
used its asyncio stack.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import MutableSet

_FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
# gRPC reads them when it is first imported, which this package does after this module.
if "grpc" not in sys.modules:
    os.environ.setdefault(_FORK_SUPPORT, "1")
    # Otherwise its C core writes lines of its own to standard error, for example when a server stops.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
_supported = os.environ.get(_FORK_SUPPORT, "0").lower() in {"1", "true", "yes", "t", "y"}


class ClientClosed(RuntimeError):
    """The client was closed, and takes no further calls."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


class ForkUnsupported(RuntimeError):
    """The process was forked from one whose use of gRPC cannot go on in a child."""


class Forgetful(Protocol):
    """What begins again in a child process."""

    def forget_after_fork(self) -> None:
        """Forget the channels of the parent."""


class _Process:
    """What this process and the one that it was forked from have done with gRPC."""

    def __init__(self) -> None:
        self.connections: MutableSet[Forgetful] = WeakSet()
        self.used = False
        self.used_asyncio = False
        self.problem: str | None = None

    def after_fork(self) -> None:
        if self.used_asyncio:
            self.problem = (
                "the parent process has used an AsyncClient: fork it before the first call, or start processes "
                "with the method 'spawn'"
            )
        elif self.used and not _supported:
            self.problem = (
                f"the parent process has used a Client, and gRPC was not told to prepare for that: set "
                f"{_FORK_SUPPORT}=1 before grpc is imported, fork before the first call, or start processes with the "
                "method 'spawn'"
            )
        for connection in list(self.connections):
            connection.forget_after_fork()


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork)


def begin_again_after_fork(connection: Forgetful) -> None:
    """Let a connection begin again in every child that is forked from now on, as long as it exists."""
    _process.connections.add(connection)


def channel_opens(*, asyncio: bool) -> None:
    """Say that a channel is about to be opened.

    Raises:
        ForkUnsupported: it could not be used in this process.
    """
    if _process.problem is not None:
        raise ForkUnsupported(_process.problem)
    _process.used = True
    _process.used_asyncio |= asyncio
