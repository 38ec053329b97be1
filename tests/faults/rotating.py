"""Callers who take their credentials from a file, as programs do whose secrets are rotated, and note what fails."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from tests.faults.apart import Signals
from tests.support.failures import failure_of

if TYPE_CHECKING:
    # Only the stub files have this type.
    from commerce.users.v1.user_service_pb2_grpc import UserServiceAsyncStub

# Each caller connects again after this many calls, so that new connections are made all the time.
_CALLS_PER_CONNECTION = 20
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Credentials:
    """What a caller has to connect and to call with; the texts of files in PEM format, a token and an API key."""

    ca: str
    certificate: str
    key: str
    token: str
    api_key: str

    def write(self, path: Path) -> None:
        """Replace a file with these credentials, all of them together."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(vars(self)))
        new.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Credentials":
        """Return the credentials in a file."""
        return cls(**json.loads(path.read_text()))

    def channel(self, port: int) -> grpc.aio.Channel:
        """Open a channel on a connection of its own, with TLS and the client certificate."""
        certificate = self.certificate.encode(), self.key.encode()
        tls = grpc.ssl_channel_credentials(self.ca.encode(), certificate[1], certificate[0])
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"localhost:{port}", tls, options)

    def metadata(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return the metadata of a call by the kind of identity: the client certificate alone needs none."""
        return {
            "certificate": (),
            "token": (("authorization", f"Bearer {self.token}"),),
            "API key": (("x-api-key", self.api_key),),
        }


@dataclass
class Served:
    """What callers have seen.

    Attributes:
        calls: how many calls were answered.
        raced: how many were repeated, because GOAWAY came while they were sent: UNAVAILABLE from gRPC itself.
        failures: the other failures, by kind of identity and reason.
    """

    calls: int = 0
    raced: int = 0
    failures: Counter[str] = field(default_factory=Counter)


async def call_with_rotating_credentials(signals: Signals, port: int, path: Path, user_id: str) -> Served:
    """Call as each kind of identity, two callers of each, until told to stop; counts the answers."""
    served = Served()
    request = users_pb.GetUserRequest(id=user_id)

    async def call(kind: str) -> None:
        while not signals.stop.is_set():
            credentials = Credentials.read(path)
            metadata = credentials.metadata()[kind]
            async with credentials.channel(port) as channel:
                users = UserServiceStub(channel)
                for _ in range(_CALLS_PER_CONNECTION):
                    if await _answered(users, request, metadata, kind, served):
                        signals.count()
                    await asyncio.sleep(_PAUSE_SECONDS)

    await asyncio.gather(*(call(kind) for kind in Credentials("", "", "", "", "").metadata() for _ in range(2)))
    return served


async def _answered(
    users: "UserServiceAsyncStub",
    request: users_pb.GetUserRequest,
    metadata: tuple[tuple[str, str], ...],
    kind: str,
    served: Served,
) -> bool:
    """Make a call, and once more if GOAWAY raced with it; return whether it was answered."""
    for attempt in range(2):
        try:
            await users.GetUser(request, metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if attempt == 0 and failure.code == grpc.StatusCode.UNAVAILABLE and not failure.reason:
                served.raced += 1
                continue
            served.failures[f"{kind}: {failure.reason or failure.code.name} {failure.message[:80]}"] += 1
            return False
        served.calls += 1
        return True
    return False


async def seconds_until_refused(port: int, credentials: Credentials, kind: str, user_id: str, patience: float) -> float:
    """Call on one connection, and on new ones, until calls are refused; return after how many seconds.

    Args:
        port: of the server.
        credentials: those that are to be refused.
        kind: which of them to call with.
        user_id: whom to get.
        patience: the maximum seconds to wait; infinity is returned after it.
    """
    start = time.monotonic()
    request = users_pb.GetUserRequest(id=user_id)
    metadata = credentials.metadata()[kind]
    async with credentials.channel(port) as kept:
        while (seconds := time.monotonic() - start) < patience:
            refused = 0
            for connected in (kept, None):
                channel = connected or credentials.channel(port)
                try:
                    await UserServiceStub(channel).GetUser(request, metadata=metadata, timeout=3)
                except grpc.aio.AioRpcError as error:
                    refused += failure_of(error).code.name in {"UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED"}
                finally:
                    if connected is None:
                        await channel.close()
            if refused == 2:
                return seconds
            await asyncio.sleep(0.1)
    return float("inf")


def keep(_self: object) -> None:
    """Do not read a file again, for the control."""
