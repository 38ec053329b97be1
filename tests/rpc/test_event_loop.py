"""The event loop that serves, `service.rpc.event_loop`."""

import asyncio
import gc
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

import grpc
import uvloop
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.rpc.event_loop import EventLoop, new_event_loop

# Turns of the loop; far fewer than calls.
TURNS = 5
CALLS = 50


@contextmanager
def answering() -> Iterator[int]:
    """Serve a method that sends back what it gets, by threads; yields the port."""
    server = grpc.server(ThreadPoolExecutor(4))
    method: Any = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", {"Echo": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()


def waking_sockets() -> list[socket.socket]:
    """Return the pair by which gRPC wakes the event loop."""
    queues = [found for found in gc.get_objects() if isinstance(found, cygrpc.PollerCompletionQueue)]
    return [found for queue in queues for found in gc.get_referents(queue) if isinstance(found, socket.socket)]


def bytes_to_read() -> int:
    sizes = (ioctl(waking.fileno(), FIONREAD, bytes(4)) for waking in waking_sockets())
    return int(sum(struct.unpack("i", size)[0] for size in sizes))


def block_until_readable(count: int) -> None:
    """Block the event loop until it has so many bytes to read."""
    end = time.monotonic() + 10
    while bytes_to_read() < count:
        assert time.monotonic() < end, bytes_to_read()
        time.sleep(0.01)


async def test_all_that_grpc_has_to_tell_is_read_in_one_turn() -> None:
    assert isinstance(asyncio.get_running_loop(), EventLoop)
    with answering() as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo: Any = channel.unary_unary("/Test/Echo")
            assert await echo(b"connected") == b"connected"
            calls = [asyncio.ensure_future(echo(b"%d" % number)) for number in range(CALLS)]
            # They are on their way.
            await asyncio.sleep(0)
            block_until_readable(CALLS)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert bytes_to_read() == 0
            assert await asyncio.gather(*calls) == [b"%d" % number for number in range(CALLS)]


def test_the_loop_is_uvloops_own_where_nothing_of_grpcs_is_used() -> None:
    loop = new_event_loop("listeners")
    assert type(loop) is uvloop.Loop
    loop.close()
