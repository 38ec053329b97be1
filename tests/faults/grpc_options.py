"""Servers of gRPC without a defence that options of gRPC are, for controls: `without("grpc.aio:server=…")`."""

from collections.abc import Mapping
from typing import Any

import grpc

# Options have this type; it stands for milliseconds, bytes and numbers of things without a limit.
_NO_LIMIT = 2**31 - 1
_make: Any = grpc.aio.server


def without_keepalive(**arguments: Any) -> grpc.aio.Server:
    """Make a server that does not ask whether its clients are still there."""
    return _server(arguments, {"grpc.keepalive_time_ms": _NO_LIMIT, "grpc.http2.ping_timeout_ms": _NO_LIMIT})


def without_limits(**arguments: Any) -> grpc.aio.Server:
    """Make a server that limits neither the streams of a connection nor the size of headers."""
    names = ("grpc.max_concurrent_streams", "grpc.max_metadata_size", "grpc.absolute_max_metadata_size")
    return _server(arguments, dict.fromkeys(names, _NO_LIMIT))


def _server(arguments: Mapping[str, Any], options: dict[str, int]) -> grpc.aio.Server:
    server: grpc.aio.Server = _make(**{**arguments, "options": [*(dict(arguments["options"]) | options).items()]})
    return server
