"""Callers that read users and place orders one call after the other, and what became of their calls."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub

from tests.faults.apart import Signals
from tests.faults.placing_orders import IMPATIENT
from tests.support.clients import item, new_order
from tests.support.failures import failure_of

# As docs/calling.md recommends.
_RETRIES = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# Round robin over the servers that report readiness.
_BALANCING = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "readiness"}}
_DEADLINE_SECONDS = 10.0
# One call in so many writes.
_WRITES = 5


@dataclass
class Outcomes:
    """What became of the calls of some callers.

    Attributes:
        succeeded: the number of calls that were answered.
        slowest: seconds that the slowest of them took.
        races: how many calls failed as gRPC's own race at GOAWAY: UNAVAILABLE that no server has sent.
        failures: how many calls failed otherwise, by code and message.
    """

    succeeded: int = 0
    slowest: float = 0.0
    races: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return self.succeeded + self.races + self.failures.total()

    def add(self, other: "Outcomes") -> None:
        """Add the outcomes of other callers."""
        self.succeeded += other.succeeded
        self.slowest = max(self.slowest, other.slowest)
        self.races += other.races
        self.failures.update(other.failures)

    def note(self, error: grpc.aio.AioRpcError) -> None:
        """Note a call that failed."""
        failure = failure_of(error)
        if failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
            self.races += 1
        else:
            self.failures[f"{failure.code.name} {failure.reason or failure.message}"] += 1


async def call_steadily(
    signals: Signals, ports: Sequence[int], user_ids: Sequence[str], seed: int, *, pause: float
) -> tuple[Outcomes, Outcomes]:
    """Call until told to stop: one caller for each user; counts the calls.

    Args:
        signals: from `apart`.
        ports: of the servers; with several, callers use round robin.
        user_ids: one for each caller.
        seed: of everything random.
        pause: seconds between two calls of a caller.

    Returns the outcomes of the callers that retry, which is every second one, and of the others.
    """
    retrying, others = Outcomes(), Outcomes()
    callers = [
        _call(signals, ports, user_id, Random(seed + number), outcomes, retries=outcomes is retrying, pause=pause)
        for number, user_id in enumerate(user_ids)
        for outcomes in [(retrying, others)[number % 2]]
    ]
    await asyncio.gather(*callers)
    return retrying, others


async def _call(
    signals: Signals,
    ports: Sequence[int],
    user_id: str,
    random: Random,
    outcomes: Outcomes,
    *,
    retries: bool,
    pause: float,
) -> None:
    async with _channel(ports, retries=retries) as channel:
        users, orders = UserServiceStub(channel), OrderServiceStub(channel)
        while not signals.stop.is_set():
            started = time.monotonic()
            try:
                if random.randrange(_WRITES):
                    await users.GetUser(users_pb.GetUserRequest(id=user_id), timeout=_DEADLINE_SECONDS)
                else:
                    request_id = str(UUID(int=random.getrandbits(128), version=4))
                    order = new_order(user_id, items=[item("anvil", 1, 10)])
                    request = pb.CreateOrderRequest(order=order, request_id=request_id)
                    await orders.CreateOrder(request, timeout=_DEADLINE_SECONDS)
            except grpc.aio.AioRpcError as error:
                outcomes.note(error)
            else:
                outcomes.succeeded += 1
                outcomes.slowest = max(outcomes.slowest, time.monotonic() - started)
            signals.count()
            await asyncio.sleep(pause)


def _channel(ports: Sequence[int], *, retries: bool) -> grpc.aio.Channel:
    config: Mapping[str, object] = _BALANCING if len(ports) > 1 else {}
    if retries:
        config = {**config, "methodConfig": [{"name": [{}], "retryPolicy": _RETRIES}]}
    # A connection for each caller: all channels of a process share theirs otherwise.
    options = [*IMPATIENT, ("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", json.dumps(config))]
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    return grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options)
