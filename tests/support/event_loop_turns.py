"""Print how many of gRPC's wake-ups an event loop has not read after a few turns.

Run as `python -m tests.support.event_loop_turns ACCEPT_MODE`.
"""

import asyncio
import gc
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fcntl import ioctl
from functools import partial
from termios import FIONREAD
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.rpc.transport.event_loop import new_event_loop

# Far fewer turns than calls.
TURNS = 5
CALLS = 50


@contextmanager
def answering() -> Iterator[int]:
    """Serve an echo method in threads; yields the port."""
    server = grpc.server(ThreadPoolExecutor(4))
    method: Any = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", {"Echo": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def bytes_to_read() -> int:
    """Return the number of unread bytes in the sockets by which gRPC wakes the event loop."""
    (queue,) = (found for found in gc.get_objects() if isinstance(found, cygrpc.PollerCompletionQueue))
    sockets = [found for found in gc.get_referents(queue) if isinstance(found, socket.socket)]
    assert sockets
    return int(sum(struct.unpack("i", ioctl(one.fileno(), FIONREAD, bytes(4)))[0] for one in sockets))


def block_until_readable(count: int) -> None:
    """Block the event loop until this many bytes are unread."""
    end = time.monotonic() + 10
    while bytes_to_read() < count:
        assert time.monotonic() < end, bytes_to_read()
        time.sleep(0.01)


async def bytes_left() -> int:
    """Return the number of bytes still unread a few turns after the answers to many calls have arrived."""
    with answering() as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo: Any = channel.unary_unary("/Test/Echo")
            assert await echo(b"connected") == b"connected"
            calls = [asyncio.ensure_future(echo(b"%d" % number)) for number in range(CALLS)]
            # This sends the calls.
            await asyncio.sleep(0)
            block_until_readable(CALLS)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            left = bytes_to_read()
            assert await asyncio.gather(*calls) == [b"%d" % number for number in range(CALLS)]
    return left


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=partial(new_event_loop, sys.argv[1])) as runner:  # type: ignore[arg-type] # as settings have it
        print(runner.run(bytes_left()))  # noqa: T201 - the test reads it
