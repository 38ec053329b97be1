"""Addresses of servers, and how gRPC's channels to them are set up."""

import ipaddress
import json
import re
from dataclasses import dataclass

import grpc

from commerce.client.credentials import Tls

_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):")
# The server may be told to send up to this much in one message. Its own limit is lower; if the client's were, a reply
# could be refused after the commit.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """What a channel is made of.

    Attributes:
        target: the address as gRPC writes it.
        tls: None for plaintext.
        options: gRPC's channel arguments.
    """

    target: str
    tls: Tls | None
    options: tuple[tuple[str, str | int], ...]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of the channel; None for plaintext."""
        return self.tls.channel_credentials() if self.tls else None


def channel_config(address: str, tls: Tls | bool | None, *, health_check: bool) -> ChannelConfig:
    """Return what a channel is made of.

    Args:
        address: `host:port`, `unix:/path`, or with a scheme of gRPC, such as `dns:///host:port`.
        tls: False for plaintext; None for plaintext on this machine only, and TLS elsewhere.
        health_check: whether only servers are used that say they are ready.

    Raises:
        ValueError: the address is empty.
    """
    if not address:
        raise ValueError("the address of a server is empty")
    target = address if _SCHEME.match(address) else f"dns:///{address}"
    if tls is None:
        tls = not _is_local(target)
    if tls is True:
        tls = Tls()
    return ChannelConfig(target, tls or None, _options(tls or None, health_check=health_check))


def _is_local(target: str) -> bool:
    scheme, _, rest = target.partition(":")
    if scheme.startswith("unix"):
        return True
    hosts = [part.rpartition(":")[0].strip("[]") for part in rest.lstrip("/").split(",")]
    return all(_is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _options(tls: Tls | None, *, health_check: bool) -> tuple[tuple[str, str | int], ...]:
    service_config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if health_check:
        # The server's health name for: the database can be reached, and this build can serve its schema.
        service_config["healthCheckConfig"] = {"serviceName": "readiness"}
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(service_config)),
        # Not from TXT records.
        ("grpc.service_config_disable_resolution", 1),
        # Retries are this package's own: gRPC's make at most five attempts, and do not know RetryInfo.
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        # A server that has vanished is noticed after 20 s, on a connection without calls too. Servers disconnect
        # clients that ping more often than every ten seconds (COMMERCE_MIN_PING_INTERVAL).
        ("grpc.keepalive_time_ms", 15_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A server that starts again is found within two seconds; gRPC's default is up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 5_000),
        # Otherwise channels of the process with the same address and arguments share connections.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", "commerce-client-python"),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return tuple(options)
