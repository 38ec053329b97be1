"""Waiting until a condition is true."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Return the value of the condition as soon as it is true; fail after a generous time."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not true within {seconds} s: {condition}") from None
