"""The channels of an `AsyncClient`: opened by the first call, one for each event loop and process."""

from __future__ import annotations

import asyncio
import logging
from inspect import isawaitable
from threading import Lock
from typing import TYPE_CHECKING, Any

import grpc.aio

from commerce.client.credentials import (
    RENEW_AGAIN_SECONDS,
    TOO_SLOW,
    AsyncTokenSource,
    HeldToken,
    no_token,
    static_metadata,
)
from commerce.client.lifecycle import ClientClosed, begin_again_after_fork, channel_opens

if TYPE_CHECKING:
    from types import TracebackType

    from commerce.client.channel import ChannelConfig
    from commerce.client.methods import Method, Request, Response

_log = logging.getLogger("commerce.client")


class RunningCalls:
    """Counts the calls that run on one event loop, so that a channel is closed after them."""

    def __init__(self) -> None:
        self._none = asyncio.Event()
        self._none.set()
        self._count = 0
        self._closed = False

    def __enter__(self) -> None:
        if self._closed:
            raise ClientClosed
        self._count += 1
        if self._count == 1:
            self._none.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()

    async def close(self, grace: float | None) -> None:
        """Let no further call begin, and wait until none runs, or `grace` seconds."""
        self._closed = True
        try:
            await asyncio.wait_for(self._none.wait(), grace)
        except TimeoutError:
            return


class LoopConnection:
    """A channel that belongs to one event loop, and the client's token there.

    Attributes:
        running: the calls that run: `with connection.running: …`.
        channel: the channel.
        closed: whether the channel is closed, which ends the calls that still run.
    """

    def __init__(self, config: ChannelConfig, token_source: AsyncTokenSource | None) -> None:
        channel_opens(asyncio=True)
        credentials, options = config.credentials(), config.options
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(config.target, options)
        else:
            self.channel = grpc.aio.secure_channel(config.target, credentials, options)
        self.running = RunningCalls()
        self.closed = False
        self._token_source = token_source
        self._token = HeldToken()
        self._renewing: asyncio.Task[tuple[str, str]] | None = None
        self._stubs: dict[str, Any] = {}

    def unary(self, method: Method[Request, Response]) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
        """Return what sends a unary call."""
        stub = self._stubs.get(method.path)
        if stub is None:
            stub = self._stubs[method.path] = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return stub

    def server_stream(self, method: Method[Request, Response]) -> grpc.aio.UnaryStreamMultiCallable[Request, Response]:
        """Return what sends a call with many responses."""
        return self.channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    def client_stream(self, method: Method[Request, Response]) -> grpc.aio.StreamUnaryMultiCallable[Request, Response]:
        """Return what sends a call with many requests."""
        return self.channel.stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    async def authorization(self, seconds: float) -> tuple[str, str] | None:
        """Return the metadata with the token; None without tokens. A new one is waited for at most `seconds`.

        Raises:
            CredentialsError: no token could be had.
        """
        if self._token_source is None:
            return None
        if fresh := self._token.fresh():
            return fresh
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(self._token_source))
            # Whether or not a call waits for it.
            self._renewing.add_done_callback(lambda task: task.cancelled() or task.exception())
        # While a token that is still valid is renewed, calls go on with it.
        if usable := self._token.usable():
            return usable
        try:
            # The task serves other calls too, so the cancellation of this one does not end it.
            return await asyncio.wait_for(asyncio.shield(self._renewing), seconds)
        except TimeoutError:
            raise no_token(TOO_SLOW) from None

    async def _renew(self, source: AsyncTokenSource) -> tuple[str, str]:
        try:
            token = source()
            return self._token.set(await token if isawaitable(token) else token)
        except Exception as error:
            usable = self._token.usable()
            if usable is None:
                raise no_token() from error
            _log.warning("the token could not be renewed; the old one is used while it is valid", exc_info=True)
            self._token.postpone(RENEW_AGAIN_SECONDS)
            return usable

    def refuse_token(self, header: tuple[str, str] | None) -> bool:
        """Forget a token that the server refused; returns whether there may be another one."""
        return self._token.refuse(header)

    async def close(self, grace: float | None) -> None:
        """Let no further call begin, wait for those that run, at most `grace` seconds, and close the channel."""
        await self.running.close(grace)
        if self._renewing is not None:
            self._renewing.cancel()
        # First, so that the calls that this ends know why.
        self.closed = True
        await self.channel.close()


class Connection:
    """A channel for each event loop, and the client's credentials.

    Args:
        config: what the channels are made of.
        api_key: of the client, if it has one.
        token: of the client, or what returns new ones, if it has any.
    """

    def __init__(self, config: ChannelConfig, api_key: str | None, token: str | AsyncTokenSource | None) -> None:
        self._config = config
        # A fixed token cannot be renewed: a call that the server refuses for it is not sent again.
        self._token_source = None if isinstance(token, str) else token
        self.static_metadata = static_metadata(api_key, token if isinstance(token, str) else None)
        self._closed = False
        self._begin()
        begin_again_after_fork(self)

    def _begin(self) -> None:
        self._lock = Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopConnection] = {}

    def here(self) -> LoopConnection:
        """Return the channel of the running event loop, which is opened now if it is not open.

        Raises:
            ClientClosed: the client is closed.
        """
        loop = asyncio.get_running_loop()
        connection = self._by_loop.get(loop)
        if connection is None:
            if self._closed:
                raise ClientClosed
            connection = LoopConnection(self._config, self._token_source)
            # Event loops of several threads can be here.
            with self._lock:
                for ended in [other for other in self._by_loop if other.is_closed()]:
                    del self._by_loop[ended]
                self._by_loop[loop] = connection
        return connection

    async def close(self, grace: float | None) -> None:
        """Let no further call begin, and close the channel of the running event loop after its calls."""
        self._closed = True
        with self._lock:
            connection = self._by_loop.get(asyncio.get_running_loop())
        if connection is not None:
            await connection.close(grace)

    def forget_after_fork(self) -> None:
        """Begin again in a child process, which has neither the parent's threads nor its sockets."""
        _of_parents.extend(connection.channel for connection in self._by_loop.values())
        self._begin()


# Channels of the parent process. If they were destroyed in a child, gRPC would wait for threads that are not there.
_of_parents: list[grpc.aio.Channel] = []
