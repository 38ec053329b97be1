"""Calls with many responses of a `Client`, and the connections on which they go on."""

from __future__ import annotations

import time
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any, Generic

import grpc

from commerce.client.failures import CommerceError
from commerce.client.lifecycle import ClientClosed
from commerce.client.methods import Method, Request, Response
from commerce.client.options import merged, metadata_of
from commerce.client.statuses import error_from
from commerce.client.streams import ended_early, refuses_token, stalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from commerce.client.options import Options
    from commerce.client.otel import CallSpan
    from commerce.client.streams import Reconnects
    from commerce.client.sync.calls import Calls


class _Watchdog(Thread):
    """Cancels a call on which nothing arrives: gRPC's blocking reads have no time-out.

    Attributes:
        has_cancelled: whether the time has passed.
    """

    def __init__(self, call: Any) -> None:
        super().__init__(name="commerce-client-watchdog", daemon=True)
        self._call = call
        self._changed = Condition()
        self._deadline: float | None = None
        self._wakes_at = float("inf")
        self._has_ended = False
        self.has_cancelled = False

    def expect(self, seconds: float | None) -> None:
        """Cancel the call in so many seconds, unless this is called again before; None waits without a limit."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            self._deadline = deadline
            # Later, the thread looks again by itself.
            if deadline is not None and deadline < self._wakes_at:
                self._changed.notify()

    def end(self) -> None:
        """End the thread."""
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def run(self) -> None:
        """Wait for the deadline, or the end of the call."""
        with self._changed:
            while not self._has_ended:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    self.has_cancelled = True
                    break
                self._wakes_at = float("inf") if self._deadline is None else self._deadline
                self._changed.wait(left)
        if self.has_cancelled:
            self._call.cancel()


class _Stream(Generic[Response]):
    """One call with many responses."""

    def __init__(self, call: Any, path: str, x_request_id: str, span: CallSpan | None) -> None:
        self._call, self._path, self._x_request_id, self._span = call, path, x_request_id, span
        self._watchdog = _Watchdog(call)
        self._watchdog.start()

    def read(self, seconds: float) -> Response | None:
        """Return the next response; None after the last.

        Raises:
            CommerceError: the call failed, or nothing arrived for some seconds.
        """
        if (span := self._span) is None:
            return self._read(seconds)
        try:
            response = self._read(seconds)
        except CommerceError as error:
            span.end(error)
            raise
        if response is None:
            span.end()
        return response

    def _read(self, seconds: float) -> Response | None:
        self._watchdog.expect(seconds)
        try:
            response: Response = next(self._call)
        except StopIteration:
            return None
        except grpc.RpcError as failed:
            if self._watchdog.has_cancelled:
                raise stalled(self._path, seconds, self._x_request_id) from None
            error = error_from(failed, path=self._path, x_request_id=self._x_request_id, reads=True)
            raise error from failed
        finally:
            # While its caller handles a response, a stream does not stall.
            self._watchdog.expect(None)
        return response

    def cancel(self) -> None:
        """End the call."""
        if self._span is not None:
            self._span.leave()
        self._watchdog.end()
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
        self._header: tuple[str, str] | None = None
        self._token_refused = False
        self._closing = Event()

    def read(self) -> Response | None:
        """Return the next response; None after the last.

        A read that is interrupted loses nothing: the next one sends the call again, with a new request.

        Raises:
            CommerceError: the call failed, and is not sent again.
            ClientClosed: this stream or the client was closed.
        """
        while not self._closing.is_set():
            try:
                # Another thread that closes this stream forgets its call.
                if (stream := self._stream) is None:
                    self._stream = self._open()
                    continue  # or closed meanwhile
                response = stream.read(min(self._stall_seconds, self._reconnects.time_left()))
                if response is None and self._endless:
                    raise ended_early(self._method.path)
            except CommerceError as error:
                self._drop()
                if self._closing.is_set():
                    break
                self._pause(error)
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

    def _open(self) -> _Stream[Response]:
        connection = self._calls.connection
        # Raises ClientClosed. The stream is not one of the running calls: they end by themselves, and it may not.
        with connection.running:
            self._header = connection.authorization(min(self._stall_seconds, self._reconnects.time_left()))
            metadata, x_request_id = metadata_of(self._options, reads=self._method.reads)
            telemetry = self._calls.telemetry
            span = telemetry.start(self._method) if telemetry is not None else None
            try:
                call = connection.server_stream(self._method)(
                    self._request(),
                    metadata=(
                        *(metadata if span is None else span.added_to(metadata)),
                        *connection.static_metadata,
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

    def _pause(self, error: CommerceError) -> None:
        if self._wants_new_token(error):
            return
        seconds = self._reconnects.pause(error)
        if self._calls.telemetry is not None:
            self._calls.telemetry.retried(self._method, error)
        self._closing.wait(seconds)

    def _wants_new_token(self, error: CommerceError) -> bool:
        if self._token_refused or not refuses_token(error):
            return False
        self._token_refused = True
        return self._calls.connection.refuse_token(self._header)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def restart(self) -> None:
        """Let the next `read` send the call again, with a new request."""
        self._drop()

    def close(self) -> None:
        """End the call. A `read` that waits in another thread raises ClientClosed."""
        self._closing.set()
        self._drop()
