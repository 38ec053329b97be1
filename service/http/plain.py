"""Plain JSON: a request and its response as JSON, without the frames and headers of any RPC protocol.

A method with one response returns it as the body, and a failure as a `google.rpc.Status`. A method with a stream of
responses returns JSON lines (https://jsonlines.org): `{"result": …}` for each response, and last `{"end": {}}`, or
`{"error": …}` with a status. A stream without such a last line was cut. If it fails before its first response, it fails
as other methods do.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing

from service.http.bridge import Bridge, Metadata, metadata_of
from service.http.conversion import Conversion
from service.http.deadlines import seconds_of
from service.http.exchange import Exchange
from service.http.failures import CallFailed, malformed, status_bytes
from service.http.memory import Memory
from service.http.methods import HttpMethod

_LINES = "application/x-ndjson"
_END = b'{"end":{}}\n'


class PlainJson:
    """Serves plain JSON.

    Args:
        bridge: calls the service.
        conversion: converts messages.
        responses: counts the responses in memory.
    """

    def __init__(self, bridge: Bridge, conversion: Conversion, responses: Memory) -> None:
        self._bridge = bridge
        self._conversion = conversion
        self._responses = responses

    async def serve(self, exchange: Exchange, method: HttpMethod) -> None:
        """Serve a request of a method; raises CallFailed before the response has begun, and ClientGone."""
        metadata, seconds = metadata_of(exchange.scope["headers"]), seconds_of(exchange)
        request = await self._conversion.request(method, await _body(exchange))
        if method.streams:
            await exchange.while_connected(self._stream(exchange, method, request, metadata, seconds))
            return
        reply = await exchange.while_connected(self._bridge.call(method, request, metadata, seconds))
        self._responses.share().hold(len(reply.response))
        await exchange.respond(200, await self._conversion.response(method, reply.response))

    async def _stream(
        self, exchange: Exchange, method: HttpMethod, request: bytes, metadata: Metadata, seconds: float | None
    ) -> None:
        share = self._responses.share()
        async with aclosing(self._bridge.stream(method, request, metadata, seconds)) as responses:
            first = await anext(responses, None)
            await exchange.start(200, _LINES)
            try:
                async for response in _with_first(first, responses):
                    share.hold(len(response))
                    body = await self._conversion.response(method, response)
                    await exchange.write(b'{"result":' + body + b"}\n", more=True)
            except CallFailed as failed:
                last = b'{"error":' + status_bytes(failed.status) + b"}\n"
            else:
                last = _END
        await exchange.write(last, more=False)


async def _with_first(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for response in rest:
        yield response


async def _body(exchange: Exchange) -> bytes:
    """Return the JSON of a request: its body, or for GET the parameter `message`."""
    if exchange.method == "POST":
        if exchange.header("content-encoding") not in {"", "identity"}:
            raise malformed("compressed requests are not accepted: send it without content-encoding", 415)
        return await exchange.body()
    parameters = exchange.query()
    if unknown := sorted(parameters.keys() - {"message", "encoding"}):
        raise malformed(
            f"the URL has an unknown parameter ({unknown[0][:50]}): the request is JSON in the parameter message"
        )
    return parameters.get("message", "{}").encode()
