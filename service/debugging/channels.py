"""What gRPC itself knows of the connections of this process: channelz (gRFC A14).

https://github.com/grpc/proposal/blob/master/A14-channelz.md

The core counts for the whole process, for every kind of server and channel, and by default. It is read with gRPC's own
package, but not served as a gRPC service: that would be one more port to protect.
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from service.debugging.endpoint import CannotAnswer

# How many connections of a server are shown.
MOST_CONNECTIONS = 200


class _Failing:
    """Takes the place of the context of a call: it raises what the servicer reports."""

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        raise CannotAnswer(f"channelz: {self._code.name}: {details}")


def channels() -> dict[str, Any]:
    """Return the servers and the channels of this process, with their connections, as channelz has them.

    Raises:
        CannotAnswer: gRPC cannot tell.
    """
    # Loaded when it is asked for the first time, which is seldom.
    from grpc_channelz.v1 import channelz_pb2 as pb  # noqa: PLC0415 - see above
    from grpc_channelz.v1.channelz import ChannelzServicer  # noqa: PLC0415 - see above

    servicer: Any = ChannelzServicer
    context = _Failing()

    def ask(method: str, request: Any) -> Any:  # noqa: ANN401 - messages share no class
        return getattr(servicer, method)(request, context)

    servers = []
    for server in ask("GetServers", pb.GetServersRequest()).server:
        request = pb.GetServerSocketsRequest(server_id=server.ref.server_id, max_results=MOST_CONNECTIONS)
        found = ask("GetServerSockets", request)
        servers.append(
            {
                "id": server.ref.server_id,
                "calls": _data(server),
                "listens_on": [ref.name or str(ref.socket_id) for ref in server.listen_socket],
                "connections": [
                    socket
                    for ref in found.socket_ref
                    if (socket := _socket(ask, pb.GetSocketRequest(socket_id=ref.socket_id))) is not None
                ],
                "all_shown": found.end,
            }
        )
    top = ask("GetTopChannels", pb.GetTopChannelsRequest()).channel
    own = [{"id": each.ref.channel_id, "target": each.data.target, "calls": _data(each)} for each in top]
    return {"servers": servers, "channels": own}


def _socket(ask: Callable[[str, Any], Any], request: Any) -> dict[str, Any] | None:  # noqa: ANN401 - as above
    """Return a connection; None if it has been closed since it was listed."""
    try:
        socket = ask("GetSocket", request).socket
    except CannotAnswer:
        return None
    return {
        "id": socket.ref.socket_id,
        "remote": _address(socket.remote),
        "local": _address(socket.local),
        "security": socket.security.WhichOneof("model") or "",
        **MessageToDict(socket.data, preserving_proto_field_name=True),
    }


def _data(entity: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    data: dict[str, Any] = MessageToDict(entity.data, preserving_proto_field_name=True)
    # Events that gRPC has noted, in words of its own.
    data.pop("trace", None)
    return data


def _address(address: Any) -> str:  # noqa: ANN401 - as above
    match address.WhichOneof("address"):
        case "tcpip_address":
            host, port = address.tcpip_address.ip_address, address.tcpip_address.port
            try:
                found = ip_address(host)
            except ValueError:
                return f"port {port}"
            return f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"  # noqa: PLR2004 - the version of IP
        case "uds_address":
            return f"unix:{address.uds_address.filename}"
        case _:
            return ""
