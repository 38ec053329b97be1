"""What gRPC is told about limits: of connections, of calls on one connection, and of what clients may send.

Each limit is an argument of gRPC's C core, which ignores unknown names silently. So the tests
(`tests/rpc/transport/test_limits.py`) break each of them with a client that sends frames of its own.
"""

import resource
import sys

import structlog

from service.config import LimitSettings

# Descriptors that are not connections of clients: PostgreSQL, files, and what gRPC and the event loop need.
_OTHER_DESCRIPTORS = 512
# gRPC reads what a client has sent into buffers that grow with what is waiting. Without a limit, a client that floods
# the server with small frames makes each of them several MB.
_READ_BUFFER_BYTES = 256 * 1024

log = structlog.get_logger()


def channel_options(settings: LimitSettings) -> list[tuple[str, int]]:
    """Return the arguments for a gRPC server, without the limit of connections, which belongs to the process."""
    options = [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", settings.max_response_bytes),
        # Without a limit, one connection can start more calls than fit into memory. A low limit makes a busy channel
        # wait, and resets, without any details, calls that a client sends before it knows the limit.
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # The same for both, because gRPC refuses at random what is between them.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        # The time until the TLS handshake and the first frame of a client are complete; gRPC's default is two minutes.
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout * 1000)),
        ("grpc.experimental.tcp_max_read_buffer_size", _READ_BUFFER_BYTES),
        # The server notices after about 13 s that a client has vanished, but only if both timeouts are set.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 3_000),
        ("grpc.http2.ping_timeout_ms", 3_000),
        # Clients may ping this often, even without an active call. A connection on which pings come faster is closed
        # at the third.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.min_ping_interval * 1000)),
    ]
    if settings.max_connection_age:
        # Without a grace period: a running call ends on the old connection, however long it takes.
        options.append(("grpc.max_connection_age_ms", int(settings.max_connection_age * 1000)))
    return options


def connections_that_fit(maximum: int) -> int:
    """Raise the process's limit of open files, and return how many connections that allows, at most `maximum`.

    A process that has no descriptor left accepts no connection, and cannot open one to its database either.
    """
    if sys.platform == "win32":
        return maximum
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = maximum + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return maximum
    # At least half of the descriptors, if there are very few.
    fitting = max(soft - _OTHER_DESCRIPTORS, soft // 2)
    log.warning("the limit of open files allows fewer connections", wanted=maximum, connections=fitting, files=soft)
    return fitting
