"""The deadline of a call in the headers of its request, as Connect or as gRPC sends it."""

import re

from service.http.exchange import Exchange
from service.http.failures import malformed

_CONNECT = "connect-timeout-ms"
_GRPC = "grpc-timeout"
# At most ten digits (https://connectrpc.com/docs/protocol), and at most eight in gRPC's own protocol.
_MILLISECONDS = re.compile(r"[0-9]{1,10}")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(rf"([0-9]{{1,8}})([{''.join(_UNITS)}])")


def seconds_of(exchange: Exchange) -> float | None:
    """Return the seconds that a call may take; None if its request does not say; raises CallFailed."""
    if sent := exchange.header(_CONNECT):
        if not _MILLISECONDS.fullmatch(sent):
            raise malformed(f"the header {_CONNECT} must be a number of milliseconds with at most 10 digits")
        return int(sent) / 1000
    if sent := exchange.header(_GRPC):
        match = _TIMEOUT.fullmatch(sent)
        if match is None:
            raise malformed(f"the header {_GRPC} must be at most 8 digits and a unit, such as 5S or 500m")
        return int(match[1]) * _UNITS[match[2]]
    return None
