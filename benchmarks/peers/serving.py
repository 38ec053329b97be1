"""Shared code of the Python peers: running a grpc.aio server, and page tokens."""

import asyncio
import os
import signal
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import grpc
import uvloop

POOL_SIZE = 10
Context = grpc.aio.ServicerContext[Any, Any]
Adding = Callable[[grpc.aio.Server], AbstractAsyncContextManager[None]]


def database_url() -> str:
    """Return DATABASE_URL without SQLAlchemy's driver name."""
    return os.environ["DATABASE_URL"].replace("+asyncpg", "")


def run(adding: Adding) -> None:
    """Serve on PORT until SIGTERM; the context manager `adding` registers services and holds their resources."""
    uvloop.run(_serve(adding))


def page_token(create_time: datetime, order_id: object) -> str:
    """Return the token for the page after this order."""
    return urlsafe_b64encode(f"{create_time.isoformat()} {order_id}".encode()).decode()


def position(token: str) -> tuple[datetime, str]:
    """Return the create time and id of the last order of the previous page."""
    create_time, order_id = urlsafe_b64decode(token).decode().split()
    return datetime.fromisoformat(create_time), order_id


async def _serve(adding: Adding) -> None:
    server = grpc.aio.server()
    async with adding(server):
        server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
        await server.start()
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        await server.stop(grace=1)
