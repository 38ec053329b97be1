"""One HTTP request and its response, with the limits that hold for every protocol."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.parse import parse_qs
from uuid import uuid4

from service.http.failures import CallFailed, status_bytes, too_large
from service.http.memory import Memory

T = TypeVar("T")
# Messages of ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html).
Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# How much of a response is handed to the connection before the client has read what was handed to it before.
_PART_BYTES = 64 * 1024
_JSON = "application/json"
_ID = "x-request-id"
# As the service accepts it (service/rpc/interceptors/access_log.py).
_VALID_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of all exchanges.

    Attributes:
        requests: counts the bodies of requests in memory.
        max_request_bytes: the maximum size of a body.
        transfer_timeout: the seconds that a client has to read a response, or a message of a stream.
    """

    requests: Memory
    max_request_bytes: int
    transfer_timeout: float


class ClientGone(Exception):
    """The client has closed the connection."""


class Exchange:
    """A request and its response.

    Args:
        scope: what ASGI says of the request.
        receive: receives the body.
        send: sends the response.
        limits: the limits.

    Attributes:
        scope: what ASGI says of the request, with the `x-request-id` among its headers.
        method: the HTTP method.
        path: the path of the URL.
        started: whether the response has begun.
        x_request_id: ties the log lines of the call together: that of the client, or a new one.
        added_headers: headers that the response has in addition, also if the library sends it.
    """

    def __init__(
        self,
        scope: Any,  # noqa: ANN401 - a dictionary of ASGI
        receive: Receive,
        send: Send,
        limits: Limits,
    ) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.started = False
        sent = self.header(_ID)
        self.x_request_id = sent if _VALID_ID.fullmatch(sent) else str(uuid4())
        others = [(name, value) for name, value in scope["headers"] if name != _ID.encode()]
        scope["headers"] = [*others, (_ID.encode(), self.x_request_id.encode())]
        self.added_headers = [(_ID, self.x_request_id), ("x-content-type-options", "nosniff")]
        self._receive = receive
        self._send = send
        self._limits = limits
        self._share = limits.requests.share()
        self._received = 0

    def header(self, name: str) -> str:
        """Return the value of a header, given its name in lower case; empty without one, the first of several."""
        key = name.encode()
        return next((value.decode("latin-1") for found, value in self.scope["headers"] if found == key), "")

    def query(self) -> dict[str, str]:
        """Return the parameters of the URL; the first of several with one name."""
        found = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}

    async def receive(self) -> Message:
        """Receive a part of the body, or the news that the client has gone; raises CallFailed if there is no memory."""
        message = await self._receive()
        if body := message.get("body"):
            self._received += len(body)
            self._share.hold(self._received)
        return message

    async def body(self) -> bytes:
        """Return the body; raises CallFailed if it is too large, before it is read, and ClientGone."""
        announced = self.header("content-length")
        if announced.isdigit() and int(announced) > self._limits.max_request_bytes:
            raise too_large(self._limits.max_request_bytes)
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if self._received > self._limits.max_request_bytes:
                raise too_large(self._limits.max_request_bytes)
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work after the body was read, and cancel it if the client goes; raises ClientGone."""
        working, watching = asyncio.ensure_future(work), asyncio.ensure_future(self._until_disconnected())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientGone
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.wait({working, watching})

    async def _until_disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, message: Message) -> None:
        """Send a message of ASGI; a client that does not read it in time is disconnected."""
        if message["type"] == "http.response.start":
            self.started = True
            added = [("date", formatdate(time.time(), usegmt=True)), *self.added_headers]
            if self.scope["state"]["is_leaving"]():
                # Then it is the last response of its connection.
                added.append(("connection", "close"))
            message = {**message, "headers": [*message["headers"], *_encoded(added)]}
        try:
            async with asyncio.timeout(self._limits.transfer_timeout):
                for part in _parts(message):
                    await self._send(part)
        except TimeoutError:
            # Of what follows, nothing is sent.
            self.scope["state"]["abort"]()

    async def start(self, status: int, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Begin a response."""
        sent = _encoded([("content-type", content_type), *headers])
        await self.send({"type": "http.response.start", "status": status, "headers": sent})

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(
        self, status: int, body: bytes, content_type: str = _JSON, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send a whole response."""
        await self.start(status, content_type, [("content-length", str(len(body))), *headers])
        await self.write(body, more=False)

    async def respond_without_body(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send a response whose status means that it has no body."""
        await self.send({"type": "http.response.start", "status": status, "headers": _encoded([*headers])})
        await self.write(b"", more=False)

    async def fail(self, failed: CallFailed) -> None:
        """Send a failure, unless the response has begun."""
        if not self.started:
            await self.respond(failed.http_status, status_bytes(failed.status), headers=failed.headers)


def _parts(message: Message) -> Iterable[Message]:
    body = message.get("body", b"")
    if len(body) <= _PART_BYTES:
        yield message
        return
    for start in range(0, len(body), _PART_BYTES):
        part = body[start : start + _PART_BYTES]
        more = message.get("more_body", False) or start + _PART_BYTES < len(body)
        yield {"type": message["type"], "body": part, "more_body": more}


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
