"""The client for programs with an event loop."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from commerce.client.aio.calls import Calls
from commerce.client.aio.connection import Connection
from commerce.client.channel import channel_config
from commerce.client.options import DEFAULTS, merged
from commerce.client.retries import RetryBudget
from commerce.client.telemetry import call_telemetry

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

    from commerce.client.aio.orders import AsyncOrders
    from commerce.client.aio.users import AsyncUsers
    from commerce.client.credentials import AsyncTokenSource, Tls
    from commerce.client.methods import Method, Request, Response
    from commerce.client.options import AnyOptions
    from commerce.client.telemetry import Telemetry


class AsyncClient:
    """A client of the user and order services: `client.users` and `client.orders`.

    Several event loops can use it, and so can a process that was forked: each opens a connection of its own. The
    constructor needs no event loop and does not connect: the first call does. The client repeats calls where that is
    safe.

    Args:
        address: of the servers: `host:port`, all of whose DNS addresses are used in turn; or `unix:/path`.
        tls: True for TLS with the CAs that gRPC trusts, or a `Tls` with others or a client certificate; False for
            plaintext. By default plaintext on this machine, and TLS elsewhere.
        api_key: the API key of the caller.
        token: the token of the caller, or a function or coroutine function that returns a new one when it is needed.
        health_check: use only servers that say they are ready.
        retry_budget: limits the load that retries add.
        telemetry: whether there are spans and metrics of calls, if the OpenTelemetry API is installed; or a `Telemetry`
            with providers other than the global ones.
        options: of all calls that do not give others, such as `timeout`, 30 s by default for a call, and
            `attempt_timeout`, 10 s for each attempt.

    Raises:
        ValueError: the address is empty, or an option cannot be used.
        TypeError: there is no such option.

    Example:
        async with AsyncClient("127.0.0.1:50051") as client:
            user = await client.users.get(username="ada")
    """

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | bool | None = None,
        api_key: str | None = None,
        token: str | AsyncTokenSource | None = None,
        health_check: bool = True,
        retry_budget: RetryBudget | None = None,
        telemetry: Telemetry | bool = True,
        **options: Unpack[AnyOptions],
    ) -> None:
        config = channel_config(address, tls, health_check=health_check)
        connection = Connection(config, api_key, token)
        spans = call_telemetry(telemetry, config.target)
        self._calls = Calls(connection, retry_budget or RetryBudget(), merged(DEFAULTS, options), spans)

    @cached_property
    def users(self) -> AsyncUsers:
        """The methods of UserService."""
        # The messages take a third of the time to import this package: they are loaded when they are used.
        from commerce.client.aio.users import AsyncUsers

        return AsyncUsers(self._calls)

    @cached_property
    def orders(self) -> AsyncOrders:
        """The methods of OrderService."""
        from commerce.client.aio.orders import AsyncOrders

        return AsyncOrders(self._calls)

    async def call(
        self, method: Method[Request, Response], request: Request, **options: Unpack[AnyOptions]
    ) -> Response:
        """Send a request message, and return the response message, of any unary method.

        Args:
            method: a constant of `commerce.client.generated.methods`.
            request: its request; it is not changed.
            options: of the call.

        Raises:
            CommerceError: the call failed.
            TypeError: the method is a stream, or the request is that of another method.
        """
        return await self._calls.call(method, method.copy(request), options)

    def with_options(self, **options: Unpack[AnyOptions]) -> Self:
        """Return a client on the same connection whose calls have these options, unless they give others."""
        other = object.__new__(type(self))
        calls = self._calls
        other._calls = Calls(calls.connection, calls.budget, merged(calls.defaults, options), calls.telemetry)
        return other

    async def close(self, grace: float | None = None) -> None:
        """Take no further calls, wait for those that run, at most `grace` seconds, and close the connection.

        It is the connection of this event loop. Those of other event loops end with them.
        """
        await self._calls.connection.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
