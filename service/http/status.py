"""The state of the server for the console: calls, their durations, and the pool, as one small document."""

from collections.abc import Awaitable, Callable, Mapping

import orjson

from service.http.exchange import Exchange
from service.http.failures import CallFailed, malformed
from service.rpc.status import status_of

PATH = "/console/status.json"
# The headers that say who calls, as for methods (docs/http.md).
_CREDENTIALS = ("authorization", "x-api-key")


class StatusPage:
    """Answers requests for the state of the server.

    Args:
        require: takes the headers of a request; raises the errors of a caller who may not see the state.
        status: returns what is shown, as values of JSON.
    """

    def __init__(
        self, require: Callable[[Mapping[str, str | bytes]], Awaitable[None]], status: Callable[[], dict[str, object]]
    ) -> None:
        self._require = require
        self._status = status

    async def answer(self, exchange: Exchange) -> None:
        """Answer a request; raises CallFailed."""
        if exchange.method != "GET":
            raise malformed("the state of the server allows GET", 405, (("allow", "GET"),))
        try:
            await self._require({name: sent for name in _CREDENTIALS if (sent := exchange.header(name))})
        except Exception as error:
            if status := status_of(error):
                raise CallFailed(status) from error
            raise
        await exchange.respond(200, orjson.dumps(self._status()), headers=[("cache-control", "no-store")])
