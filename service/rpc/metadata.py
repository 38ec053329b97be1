"""What callers send as metadata, read once for each call: each time costs gRPC as much as it takes to log the call."""

from collections.abc import Mapping
from contextvars import ContextVar

from service.rpc.interceptors.base import Context

_last: ContextVar[tuple[Context, Mapping[str, str | bytes]] | None] = ContextVar("metadata", default=None)


def sent_metadata(context: Context) -> Mapping[str, str | bytes]:
    """Return the metadata of a call; of a key that was sent twice, the last value."""
    known = _last.get()
    if known and known[0] is context:
        return known[1]
    metadata: Mapping[str, str | bytes] = dict(context.invocation_metadata() or ())
    _last.set((context, metadata))
    return metadata
