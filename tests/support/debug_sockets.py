"""Asks debug sockets, as `commerce debug` does."""

import os
import socket
from asyncio import to_thread
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from service.debugging.endpoint import Answer, Endpoint
from service.debugging.protocol import names, receive_line, send_line

MAX_BYTES = 1 << 24


@contextmanager
def listening(answer: Answer) -> Iterator[str]:
    """Open a debug socket with these answers until the block ends; yields its name."""
    before = names_of(os.getpid())
    endpoint = Endpoint(answer)
    endpoint.open()
    try:
        (name,) = names_of(os.getpid()) - before
        yield name
    finally:
        endpoint.close()


def names_of(pid: int) -> set[str]:
    """Return the names of the debug sockets of a process."""
    return {name for name in names() if name.startswith(f"\0commerce-debug/{pid}/")}


async def ask(name: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a question."""

    def asked() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(name)
            # One that refuses an answer may have said so, and have gone, already.
            with suppress(BrokenPipeError):
                send_line(connection, question)
            return receive_line(connection, MAX_BYTES)

    return await to_thread(asked)


async def ask_process(pid: int, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of a server that is the only one in its process."""
    (name,) = names_of(pid)
    return await ask(name, question)
