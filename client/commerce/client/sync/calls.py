"""Calls of a `Client`: sent, and repeated where that is safe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic

import grpc

from commerce.client.errors import CommerceError, CredentialsError
from commerce.client.methods import Method, Request, Response
from commerce.client.options import merged
from commerce.client.requests import PreparedCall, with_request_id

if TYPE_CHECKING:
    from commerce.client.options import AnyOptions, Options
    from commerce.client.retries import RetryBudget
    from commerce.client.sync.connection import Connection
    from commerce.client.telemetry import CallTelemetry


class StartedCall(Generic[Response]):
    """A call whose first attempt is on its way, while its caller does something else."""

    def __init__(self, calls: Calls, prepared: PreparedCall, method: Method[Any, Response], request: Any) -> None:
        self._calls, self._prepared, self._method, self._request = calls, prepared, method, request
        self._first: grpc.Future[Response] | None = None
        self._header: tuple[str, str] | None = None
        try:
            with calls.connection.running:
                self._header = calls.connection.authorization(prepared.attempts.time_left())
                self._first = calls.connection.unary(method).future(
                    request, timeout=prepared.attempts.timeout(), metadata=prepared.with_token(self._header)
                )
        except CredentialsError:
            # `result` asks for a token again: its caller may first use what it has.
            return
        except BaseException as error:
            if prepared.span is not None:
                prepared.span.end(error)
            raise

    def result(self) -> Response:
        """Wait for the response.

        Raises:
            CommerceError: the call failed.
        """
        # The time until now was the caller's own.
        self._prepared.attempts.restart()
        return self._calls.finish(self._prepared, self._method, self._request, self._first, self._header)

    def cancel(self) -> None:
        """Leave the call."""
        if self._first is not None:
            self._first.cancel()
        if self._prepared.span is not None:
            self._prepared.span.leave()


class Calls:
    """Sends calls.

    Args:
        connection: the channel.
        budget: of retries, which all calls of a client share.
        defaults: options of calls that do not give others.
        telemetry: starts the spans of calls; None if there are no spans.
    """

    def __init__(
        self,
        connection: Connection,
        budget: RetryBudget,
        defaults: AnyOptions,
        telemetry: CallTelemetry | None = None,
    ) -> None:
        self.connection, self.budget, self.defaults, self.telemetry = connection, budget, defaults, telemetry

    def call(self, method: Method[Request, Response], request: Request, options: Options) -> Response:
        """Send a unary call, and return its response. A `request_id` that is missing is set in the request.

        Raises:
            CommerceError: the call failed.
            ClientClosed: the client is closed.
        """
        return self.finish(self._prepare(method, request, options), method, request)

    def start(self, method: Method[Request, Response], request: Request, options: Options) -> StartedCall[Response]:
        """Send the first attempt of a unary call, and return without waiting for its response."""
        return StartedCall(self, self._prepare(method, request, options), method, request)

    def _prepare(self, method: Method[Request, Response], request: Request, options: Options) -> PreparedCall:
        with_request_id(method, request)
        together = merged(self.defaults, options)
        return PreparedCall(method, request, together, self.budget, self.connection.static_metadata, self.telemetry)

    def finish(
        self,
        prepared: PreparedCall,
        method: Method[Request, Response],
        request: Request,
        first: grpc.Future[Response] | None = None,
        header: tuple[str, str] | None = None,
    ) -> Response:
        """Wait for the first attempt, if it is on its way, and make those that it needs after it."""
        if (span := prepared.span) is None:
            return self._finish(prepared, method, request, first, header)
        with span:
            return self._finish(prepared, method, request, first, header)

    def _finish(
        self,
        prepared: PreparedCall,
        method: Method[Request, Response],
        request: Request,
        first: grpc.Future[Response] | None,
        header: tuple[str, str] | None,
    ) -> Response:
        connection, attempts = self.connection, prepared.attempts
        with connection.running:
            send = connection.unary(method)
            while True:
                error: CommerceError
                try:
                    if first is not None:
                        response = first.result()
                    else:
                        header = connection.authorization(attempts.time_left())
                        response = send(
                            request,
                            timeout=attempts.timeout(),
                            metadata=prepared.with_token(header),
                            # A retry waits for a connection, rather than fail and come back while there is none.
                            wait_for_ready=attempts.number > 1,
                        )
                except grpc.RpcError as failed:
                    error = prepared.error(failed)
                except CredentialsError as failed:
                    error = failed
                else:
                    attempts.succeeded()
                    return response
                first = None
                if not (prepared.wants_new_token(error) and connection.refuse_token(header)):
                    if not (connection.closed and error.code is grpc.StatusCode.CANCELLED):
                        seconds = attempts.pause(error)
                        if prepared.span is not None:
                            prepared.span.retried(error, seconds)
                        time.sleep(seconds)
                    if connection.closed:
                        raise prepared.closed_error() from error
