"""What a polite caller, and the memory of the server, suffer from abuse."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.apart import Apart, apart
from tests.faults.as_caller import Metadata, clients_as
from tests.faults.experiment import Plan, Result
from tests.faults.polite import Experience, call_politely
from tests.support.memory import forget_peak, peak_mebibytes
from tests.support.processes import Process

# How many times as long the calls of a polite caller may take, at the 99th percentile.
MAX_RATIO = 3
# Between the end of one abuse and the quiet before the next.
_PAUSE_SECONDS = 1


class Abuse:
    """Measures one kind of abuse after the other, each beside a polite caller.

    Args:
        plan: of the experiment.
        server: the server.
        caller: the polite caller.
    """

    def __init__(self, plan: Plan, server: Process, caller: Apart[Experience]) -> None:
        self._quiet_seconds = plan.size(full=5, smoke=1)
        self._warm_calls = plan.size(full=500, smoke=100)
        self._server = server
        self._caller = caller
        self._before = 0.0
        self._quiet: list[tuple[float, float]] = []
        self._abused: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self._mebibytes: defaultdict[str, float] = defaultdict(float)

    async def settle(self) -> None:
        """Let the server warm up under the polite caller, and measure its memory."""
        await self._caller.until_counted(self._warm_calls)
        self._before = peak_mebibytes(self._server.pid)

    @asynccontextmanager
    async def measuring(self, kind: str) -> AsyncIterator[None]:
        """Measure what happens in the block, after a quiet time.

        If a kind is measured several times, that counts in which the calls of others were fastest, because what else
        the machine does can only slow them down, and that in which the server took the most memory.
        """
        start = time.monotonic()
        await asyncio.sleep(self._quiet_seconds)
        self._quiet.append((start, time.monotonic()))
        forget_peak(self._server.pid)
        start = time.monotonic()
        yield
        self._abused[kind].append((start, time.monotonic()))
        self._mebibytes[kind] = max(self._mebibytes[kind], peak_mebibytes(self._server.pid) - self._before)
        await asyncio.sleep(_PAUSE_SECONDS)

    async def result(self, max_mebibytes: float) -> Result:
        """End the polite caller, and return what it and the server suffered."""
        experience = await self._caller.result()
        quiet = experience.p99_ms(self._quiet)
        slowed = {
            kind: min(experience.p99_ms([period]) for period in periods) / quiet
            for kind, periods in self._abused.items()
        }
        slowest = max(slowed, key=slowed.__getitem__)
        largest = max(self._mebibytes, key=self._mebibytes.__getitem__)
        result = Result(
            {
                "calls of others": len(experience.calls),
                "failed": experience.failures.total(),
                "quiet p99, ms": quiet,
                "largest ratio of p99": f"{slowed[slowest]:.2f} ({slowest})",
                "largest growth, MiB": f"{self._mebibytes[largest]:.0f} ({largest})",
            }
        )
        result.require(not experience.failures, f"calls of others failed: {dict(experience.failures)}")
        result.require(self._server.running, "the server has ended")
        for kind, mebibytes in self._mebibytes.items():
            result.require(mebibytes < max_mebibytes, f"{kind}: the server used {mebibytes:.0f} MiB more")
        for kind, ratio in slowed.items():
            result.require_in_time(ratio < MAX_RATIO, f"{kind}: the p99 of others became {ratio:.1f} times as long")
        return result


@asynccontextmanager
async def beside_a_polite_caller(plan: Plan, server: Process, metadata: Metadata = ()) -> AsyncIterator[Abuse]:
    """Call the server politely, with this credential, until the block ends."""
    port = await server.port()
    async with clients_as(port, metadata) as clients:
        user = await clients.create_user()
    async with apart(call_politely, port, user.id, user.username, metadata) as caller:
        abuse = Abuse(plan, server, caller)
        await abuse.settle()
        yield abuse
