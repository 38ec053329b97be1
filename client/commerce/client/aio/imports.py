"""Imports of an `AsyncClient`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING

import grpc.aio

from commerce.client.aio.calls import is_cancelled
from commerce.client.failures import CommerceError
from commerce.client.generated.methods import IMPORT_USERS
from commerce.client.imports import closed_error
from commerce.client.options import merged, metadata_of
from commerce.client.statuses import error_from
from commerce.client.streams import TOKEN_SECONDS, Reconnects, refuses_token, retry_policy

if TYPE_CHECKING:
    from commerce.client.aio.calls import Calls
    from commerce.client.imports import ImportProgress, Row, UserImport
    from commerce.client.options import AnyOptions, Options
    from commerce.client.otel import CallSpan
    from commerce.client.retries import RetryPolicy
    from commerce.users.v1.user_service_pb2 import ImportUsersResponse


async def import_users(
    calls: Calls,
    rows: Iterable[Row] | AsyncIterable[Row],
    state: UserImport,
    options: Options,
    reconnect_timeout: float | None,
) -> ImportProgress:
    """Import rows in calls of a thousand rows; the client repeats a call that breaks. Raises CommerceError."""
    policy = retry_policy(options)
    together = merged(calls.defaults, options)
    async for row in _each(rows):
        if state.add(row):
            await _send(calls, state, together, _reconnects(calls, policy, reconnect_timeout))
    if state.has_rows:
        await _send(calls, state, together, _reconnects(calls, policy, reconnect_timeout))
    return state.progress


def _reconnects(calls: Calls, policy: RetryPolicy | None, seconds: float | None) -> Reconnects:
    reconnects = Reconnects(policy, calls.budget, first=seconds, later=seconds)
    # The time counts from the first failure: before, a call may take as long as passwords are hashed.
    reconnects.succeeded()
    return reconnects


async def _each(rows: Iterable[Row] | AsyncIterable[Row]) -> AsyncIterator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def _send(calls: Calls, state: UserImport, options: AnyOptions, reconnects: Reconnects) -> None:
    span = calls.telemetry.start(IMPORT_USERS) if calls.telemetry is not None else None
    if span is None:
        await _repeat(calls, state, options, reconnects, None)
    else:
        with span:
            await _repeat(calls, state, options, reconnects, span)


async def _repeat(
    calls: Calls, state: UserImport, options: AnyOptions, reconnects: Reconnects, span: CallSpan | None
) -> None:
    connection = calls.connection.here()
    token_refused = False
    while True:
        header = None
        try:
            with connection.running:
                header = await connection.authorization(TOKEN_SECONDS)
                response = await _call(calls, state, options, header, span)
        except CommerceError as failed:
            error = state.failed(failed)
            if refuses_token(error) and not token_refused and connection.refuse_token(header):
                token_refused = True
                continue
            if connection.closed or not state.may_repeat(error):
                raise error from failed.__cause__
            seconds = reconnects.pause(error)
            if span is not None:
                span.retried(error, seconds)
            await asyncio.sleep(seconds)
            if connection.closed:
                raise state.failed(closed_error()) from error
        else:
            state.imported(response)
            return


async def _call(
    calls: Calls,
    state: UserImport,
    options: AnyOptions,
    header: tuple[str, str] | None,
    span: CallSpan | None,
) -> ImportUsersResponse:
    metadata, x_request_id = metadata_of(options, reads=False)
    if span is not None:
        metadata = span.added_to(metadata)
    connection = calls.connection.here()
    send = connection.client_stream(IMPORT_USERS)
    call = send(
        state.requests(),
        metadata=(*metadata, *calls.connection.static_metadata, *((header,) if header else ())),
    )
    try:
        return await call
    except grpc.RpcError as failed:
        raise error_from(failed, path=IMPORT_USERS.path, x_request_id=x_request_id, reads=False) from failed
    except asyncio.CancelledError:
        # gRPC also raises it in the calls of a channel that is closed.
        if connection.closed and not is_cancelled():
            raise closed_error(x_request_id) from None
        raise
