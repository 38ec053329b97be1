"""Imports of a `Client`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc

from commerce.client.failures import CommerceError
from commerce.client.generated.methods import IMPORT_USERS
from commerce.client.imports import closed_error
from commerce.client.options import merged, metadata_of
from commerce.client.statuses import error_from
from commerce.client.streams import TOKEN_SECONDS, Reconnects, refuses_token, retry_policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commerce.client.imports import ImportProgress, Row, UserImport
    from commerce.client.options import AnyOptions, Options
    from commerce.client.otel import CallSpan
    from commerce.client.retries import RetryPolicy
    from commerce.client.sync.calls import Calls
    from commerce.users.v1.user_service_pb2 import ImportUsersResponse


def import_users(
    calls: Calls,
    rows: Iterable[Row],
    state: UserImport,
    options: Options,
    reconnect_timeout: float | None,
) -> ImportProgress:
    """Import rows in calls of a thousand rows; the client repeats a call that breaks. Raises CommerceError."""
    policy = retry_policy(options)
    together = merged(calls.defaults, options)
    for row in rows:
        if state.add(row):
            _send(calls, state, together, _reconnects(calls, policy, reconnect_timeout))
    if state.has_rows:
        _send(calls, state, together, _reconnects(calls, policy, reconnect_timeout))
    return state.progress


def _reconnects(calls: Calls, policy: RetryPolicy | None, seconds: float | None) -> Reconnects:
    reconnects = Reconnects(policy, calls.budget, first=seconds, later=seconds)
    # The time counts from the first failure: before, a call may take as long as passwords are hashed.
    reconnects.succeeded()
    return reconnects


def _send(calls: Calls, state: UserImport, options: AnyOptions, reconnects: Reconnects) -> None:
    span = calls.telemetry.start(IMPORT_USERS) if calls.telemetry is not None else None
    if span is None:
        _repeat(calls, state, options, reconnects, None)
    else:
        with span:
            _repeat(calls, state, options, reconnects, span)


def _repeat(
    calls: Calls, state: UserImport, options: AnyOptions, reconnects: Reconnects, span: CallSpan | None
) -> None:
    connection = calls.connection
    token_refused = False
    while True:
        header = None
        try:
            with connection.running:
                header = connection.authorization(TOKEN_SECONDS)
                response = _call(calls, state, options, header, span)
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
            time.sleep(seconds)
            if connection.closed:
                raise state.failed(closed_error()) from error
        else:
            state.imported(response)
            return


def _call(
    calls: Calls,
    state: UserImport,
    options: AnyOptions,
    header: tuple[str, str] | None,
    span: CallSpan | None,
) -> ImportUsersResponse:
    metadata, x_request_id = metadata_of(options, reads=False)
    if span is not None:
        metadata = span.added_to(metadata)
    connection = calls.connection
    send = connection.client_stream(IMPORT_USERS)
    try:
        return send(
            state.requests(),
            metadata=(*metadata, *connection.static_metadata, *((header,) if header else ())),
        )
    except grpc.RpcError as failed:
        if connection.closed and failed.code() is grpc.StatusCode.CANCELLED:
            raise closed_error(x_request_id) from failed
        raise error_from(failed, path=IMPORT_USERS.path, x_request_id=x_request_id, reads=False) from failed
