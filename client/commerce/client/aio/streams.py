"""Calls with many responses of an `AsyncClient`, and the connections on which they go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic

import grpc.aio

from commerce.client.failures import CommerceError
from commerce.client.lifecycle import ClientClosed
from commerce.client.methods import Method, Request, Response
from commerce.client.options import merged, metadata_of
from commerce.client.statuses import error_from
from commerce.client.streams import ended_early, refuses_token, stalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from commerce.client.aio.calls import Calls
    from commerce.client.aio.connection import LoopConnection
    from commerce.client.options import Options
    from commerce.client.otel import CallSpan
    from commerce.client.streams import Reconnects


class _Cancelled(Exception):
    """The call was cancelled by `cancel`, or because its channel was closed."""


class _Stream(Generic[Response]):
    """One call with many responses."""

    def __init__(self, call: Any, path: str, x_request_id: str, span: CallSpan | None) -> None:
        self._call, self._path, self._x_request_id, self._span = call, path, x_request_id, span

    async def read(self, seconds: float) -> Response | None:
        """Return the next response; None after the last.

        Raises:
            CommerceError: the call failed, or nothing arrived for some seconds.
            _Cancelled: this program has cancelled the call.
        """
        if (span := self._span) is None:
            return await self._read(seconds)
        try:
            response = await self._read(seconds)
        except CommerceError as error:
            span.end(error)
            raise
        if response is None:
            span.end()
        return response

    async def _read(self, seconds: float) -> Response | None:
        try:
            async with asyncio.timeout(seconds):
                response: Any = await self._call.read()
        except TimeoutError:
            raise stalled(self._path, seconds, self._x_request_id) from None
        except grpc.RpcError as failed:
            error = error_from(failed, path=self._path, x_request_id=self._x_request_id, reads=True)
            raise error from failed
        except asyncio.CancelledError:
            # gRPC raises this also in a task that is not cancelled, if its call is.
            task = asyncio.current_task()
            if task is None or task.cancelling() or not self._call.cancelled():
                raise
            raise _Cancelled from None
        return None if response is grpc.aio.EOF else response

    def cancel(self) -> None:
        """End the call."""
        if self._span is not None:
            self._span.leave()
        self._call.cancel()


class ResponseStream(Generic[Response]):
    """The responses of a call that is sent again when its connection breaks.

    Args:
        calls: of the client.
        method: of the call.
        request: returns the request with which the stream begins, or goes on.
        options: of the call.
        reconnects: when it is sent again.
        stall_seconds: without a response, after which the connection is given up.
        endless: whether the server never ends the stream without an error.
    """

    def __init__(
        self,
        calls: Calls,
        method: Method[Request, Response],
        request: Callable[[], Any],
        options: Options,
        reconnects: Reconnects,
        *,
        stall_seconds: float,
        endless: bool,
    ) -> None:
        self._calls, self._method, self._request, self._reconnects = calls, method, request, reconnects
        self._options = merged(calls.defaults, options)
        self._stall_seconds, self._endless = stall_seconds, endless
        self._stream: _Stream[Response] | None = None
        self._connection: LoopConnection | None = None
        self._header: tuple[str, str] | None = None
        self._token_refused = False
        self._closing = asyncio.Event()

    async def read(self) -> Response | None:
        """Return the next response; None after the last.

        A read that is cancelled loses nothing: the next one sends the call again, with a new request.

        Raises:
            CommerceError: the call failed, and is not sent again.
            ClientClosed: this stream or the client was closed.
        """
        while not self._closing.is_set():
            try:
                if (stream := self._stream) is None:
                    self._stream = await self._open()
                    continue  # or closed meanwhile
                response = await stream.read(min(self._stall_seconds, self._reconnects.time_left()))
                if response is None and self._endless:
                    raise ended_early(self._method.path)
            except _Cancelled:
                self._drop()
            except CommerceError as error:
                self._drop()
                await self._pause(error)
            except BaseException:
                self._drop()
                raise
            else:
                self._reconnects.succeeded()
                self._token_refused = False
                return response
        # A call that was opened while this stream was closed.
        self._drop()
        raise ClientClosed

    async def _open(self) -> _Stream[Response]:
        connection = self._connection = self._calls.connection.here()
        # Raises ClientClosed. The stream is not one of the running calls: they end by themselves, and it may not.
        with connection.running:
            self._header = await connection.authorization(min(self._stall_seconds, self._reconnects.time_left()))
            metadata, x_request_id = metadata_of(self._options, reads=self._method.reads)
            telemetry = self._calls.telemetry
            span = telemetry.start(self._method) if telemetry is not None else None
            try:
                call = connection.server_stream(self._method)(
                    self._request(),
                    metadata=(
                        *(metadata if span is None else span.added_to(metadata)),
                        *self._calls.connection.static_metadata,
                        *((self._header,) if self._header else ()),
                    ),
                    # A retry waits for a connection, rather than fail and come back while there is none.
                    wait_for_ready=self._reconnects.attempts > 0,
                )
            except BaseException as error:
                if span is not None:
                    span.end(error)
                raise
        return _Stream(call, self._method.path, x_request_id, span)

    async def _pause(self, error: CommerceError) -> None:
        if self._wants_new_token(error):
            return
        seconds = self._reconnects.pause(error)
        if self._calls.telemetry is not None:
            self._calls.telemetry.retried(self._method, error)
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    def _wants_new_token(self, error: CommerceError) -> bool:
        if self._token_refused or not refuses_token(error):
            return False
        self._token_refused = True
        return self._connection is not None and self._connection.refuse_token(self._header)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def restart(self) -> None:
        """Let the next `read` send the call again, with a new request."""
        self._drop()

    def close(self) -> None:
        """End the call. A `read` that waits raises ClientClosed."""
        self._closing.set()
        self._drop()
