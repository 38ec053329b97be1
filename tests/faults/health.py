"""A probe that asks for the health of a server, as Kubernetes does, and measures the answers."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.faults.apart import Signals

# Liveness, and readiness for calls.
SERVICES = ("", "readiness")


@dataclass
class Health:
    """What the probe saw.

    Attributes:
        checks: how many answers it got.
        failed: how many checks failed.
        longest: the longest time in seconds that an answer took.
    """

    checks: int = 0
    failed: int = 0
    longest: float = 0


async def check_health(signals: Signals, port: int, *, pause: float = 0.05) -> Health:
    """Check the health of a server until told to stop, on a connection of its own."""
    health = Health()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        # Only its asynchronous stub has types.
        stub: Any = HealthStub(channel)
        while not signals.stop.is_set():
            for service in SERVICES:
                start = time.monotonic()
                try:
                    await stub.Check(HealthCheckRequest(service=service), timeout=10)
                except grpc.aio.AioRpcError:
                    health.failed += 1
                health.checks += 1
                health.longest = max(health.longest, time.monotonic() - start)
                signals.count()
            await asyncio.sleep(pause)
    return health
