"""Conversion between messages and JSON, which for large messages is done in a thread.

Python converts about 10 MB a second, so that a page of 4 MiB would block the event loop, and with it all calls, for
nearly half a second. In the thread, it takes turns with the event loop. There is one thread, so that the large messages
of some callers take at most about half of the processor.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from service.http.json_messages import parse_request, response_json
from service.http.methods import HttpMethod

# Converted in about 2 ms.
_SMALL_BYTES = 16 * 1024


class Conversion:
    """Converts requests from JSON and responses to JSON."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "json")

    async def request(self, method: HttpMethod, body: bytes) -> bytes:
        """Return the serialized request that JSON describes; raises CallFailed."""
        if len(body) <= _SMALL_BYTES:
            return parse_request(method, body)
        return await asyncio.get_running_loop().run_in_executor(self._thread, parse_request, method, body)

    async def response(self, method: HttpMethod, response: bytes) -> bytes:
        """Return a serialized response as JSON."""
        if len(response) <= _SMALL_BYTES:
            return response_json(method, response)
        return await asyncio.get_running_loop().run_in_executor(self._thread, response_json, method, response)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)
