"""The channel of a `Client`: opened by the first call, one for each process, closed when no call runs."""

from __future__ import annotations

import logging
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any

import grpc

from commerce.client.credentials import (
    RENEW_AGAIN_SECONDS,
    TOO_SLOW,
    HeldToken,
    TokenSource,
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
    """Counts the calls that run, so that a channel is closed after them. Safe for use by several threads.

    Attributes:
        closed: whether no further call may begin.
    """

    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._count = 0
        self.closed = False

    def __enter__(self) -> None:
        with self._changed:
            if self.closed:
                raise ClientClosed
            self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._count -= 1
            if self.closed:
                self._changed.notify_all()

    def close(self, grace: float | None) -> None:
        """Let no further call begin, and wait until none runs, or `grace` seconds."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: not self._count, grace)


class Connection:
    """A channel to the servers, and the client's credentials.

    Args:
        config: what the channel is made of.
        api_key: of the client, if it has one.
        token: of the client, or what returns new ones, if it has any.

    Attributes:
        running: the calls that run: `with connection.running: …`.
        closed: whether the channel is closed, which ends the calls that still run.
    """

    def __init__(self, config: ChannelConfig, api_key: str | None, token: str | TokenSource | None) -> None:
        self._config = config
        # A fixed token cannot be renewed: a call that the server refuses for it is not sent again.
        self._token_source = None if isinstance(token, str) else token
        self.static_metadata = static_metadata(api_key, token if isinstance(token, str) else None)
        self._begin()
        begin_again_after_fork(self)

    def _begin(self) -> None:
        self._lock = Lock()
        self._token_lock = Lock()
        self._token = HeldToken()
        self._channel: grpc.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self.running = RunningCalls()
        self.closed = False

    def unary(self, method: Method[Request, Response]) -> grpc.UnaryUnaryMultiCallable[Request, Response]:
        """Return what sends a unary call."""
        stub = self._stubs.get(method.path)
        if stub is None:
            stub = self._stubs[method.path] = self.channel().unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return stub

    def server_stream(self, method: Method[Request, Response]) -> grpc.UnaryStreamMultiCallable[Request, Response]:
        """Return what sends a call with many responses."""
        return self.channel().unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    def client_stream(self, method: Method[Request, Response]) -> grpc.StreamUnaryMultiCallable[Request, Response]:
        """Return what sends a call with many requests."""
        return self.channel().stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    def channel(self) -> grpc.Channel:
        """Return the channel, which is opened now if it is not open."""
        with self._lock:
            if self._channel is None:
                channel_opens(asyncio=False)
                credentials, options = self._config.credentials(), self._config.options
                if credentials is None:
                    self._channel = grpc.insecure_channel(self._config.target, options)
                else:
                    self._channel = grpc.secure_channel(self._config.target, credentials, options)
            return self._channel

    def authorization(self, seconds: float) -> tuple[str, str] | None:
        """Return the metadata with the token; None without tokens.

        If another thread asks for a new token, it is waited for at most `seconds`.

        Raises:
            CredentialsError: no token could be had.
        """
        if self._token_source is None:
            return None
        if fresh := self._token.fresh():
            return fresh
        # While one thread renews a token that is still valid, the others go on with it.
        usable = self._token.usable()
        if not self._token_lock.acquire(timeout=0 if usable else seconds):
            if usable:
                return usable
            raise no_token(TOO_SLOW)
        try:
            return self._token.fresh() or self._renew(self._token_source)
        finally:
            self._token_lock.release()

    def _renew(self, source: TokenSource) -> tuple[str, str]:
        try:
            return self._token.set(source())
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

    def close(self, grace: float | None) -> None:
        """Let no further call begin, wait for those that run, at most `grace` seconds, and close the channel."""
        self.running.close(grace)
        with self._lock:
            # First, so that the calls that this ends know why.
            self.closed = True
            if self._channel is not None:
                self._channel.close()

    def forget_after_fork(self) -> None:
        """Begin again in a child process, which has neither the parent's threads nor its sockets."""
        if self._channel is not None:
            _of_parents.append(self._channel)
        was_closed = self.running.closed
        self._begin()
        if was_closed:
            self.close(grace=0)


# Channels of the parent process. If they were destroyed in a child, gRPC would wait for threads that are not there.
_of_parents: list[grpc.Channel] = []
