"""Replaces how the service refuses calls by the least that gRPC needs for it, so that `refusals.py` can compare."""

import asyncio
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.rpc.admission.refusals import next_refusal

_private: Any = cygrpc
_metadata = _private.SendInitialMetadataOperation((), 0)


async def send_status(call: Any, _turn: object) -> None:
    """Send the prepared status without an `x-request-id`, so that the metadata of the call need not be read."""
    status, loop = next_refusal(), asyncio.get_running_loop()
    await _private._send_error_status_from_server(call, status.number, status.message, status.trailers, _metadata, loop)
