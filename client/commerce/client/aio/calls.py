"""Calls of an `AsyncClient`: sent, and repeated where that is safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio

from commerce.client.errors import CredentialsError
from commerce.client.options import merged
from commerce.client.requests import PreparedCall, with_request_id

if TYPE_CHECKING:
    from commerce.client.aio.connection import Connection
    from commerce.client.failures import CommerceError
    from commerce.client.methods import Method, Request, Response
    from commerce.client.options import AnyOptions, Options
    from commerce.client.retries import RetryBudget
    from commerce.client.telemetry import CallTelemetry


class Calls:
    """Sends calls.

    Args:
        connection: the channels.
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

    async def call(self, method: Method[Request, Response], request: Request, options: Options) -> Response:
        """Send a unary call, and return its response. A `request_id` that is missing is set in the request.

        Raises:
            CommerceError: the call failed.
            ClientClosed: the client is closed.
        """
        with_request_id(method, request)
        together = merged(self.defaults, options)
        static, telemetry = self.connection.static_metadata, self.telemetry
        prepared = PreparedCall(method, request, together, self.budget, static, telemetry)
        if (span := prepared.span) is None:
            return await self._send(prepared, method, request)
        with span:
            return await self._send(prepared, method, request)

    async def _send(self, prepared: PreparedCall, method: Method[Request, Response], request: Request) -> Response:
        connection, attempts = self.connection.here(), prepared.attempts
        with connection.running:
            send = connection.unary(method)
            while True:
                error: CommerceError
                header = None
                try:
                    header = await connection.authorization(attempts.time_left())
                    response = await send(
                        request,
                        timeout=attempts.timeout(),
                        metadata=prepared.with_token(header),
                        # A retry waits for a connection, rather than fail and come back while there is none.
                        wait_for_ready=attempts.number > 1,
                    )
                except grpc.aio.AioRpcError as failed:
                    error = prepared.error(failed)
                except CredentialsError as failed_token:
                    error = failed_token
                except asyncio.CancelledError:
                    # gRPC also raises it in the calls of a channel that is closed.
                    if connection.closed and not is_cancelled():
                        raise prepared.closed_error() from None
                    raise
                else:
                    attempts.succeeded()
                    return response
                if not (prepared.wants_new_token(error) and connection.refuse_token(header)):
                    seconds = attempts.pause(error)
                    if prepared.span is not None:
                        prepared.span.retried(error, seconds)
                    await asyncio.sleep(seconds)
                    if connection.closed:
                        raise prepared.closed_error() from error


def is_cancelled() -> bool:
    """Return whether the running task itself is asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
