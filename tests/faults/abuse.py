"""What a polite caller, and the memory of the server, suffer from abuse."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.faults.apart import apart
from tests.faults.as_caller import Metadata, clients_as
from tests.faults.experiment import Plan, Result
from tests.faults.polite import Experience, call_politely
from tests.support.memory import forget_peak, peak_mebibytes
from tests.support.processes import Process

# How many times as long the calls of a polite caller may take, at the 99th percentile.
MAX_RATIO = 3
# How often a kind of abuse is measured while the ratio is too high.
_MAX_ROUNDS = 3
# Between the end of one abuse and the quiet before the next.
_PAUSE_SECONDS = 1

# Does one kind of abuse; what it does in the block of the context manager is measured.
Act = Callable[[str, AbstractAsyncContextManager[None]], Awaitable[None]]


async def suffered(
    plan: Plan,
    server: Process,
    kinds: Sequence[str],
    act: Act,
    *,
    max_mebibytes: float,
    metadata: Metadata = (),
) -> Result:
    """Do one kind of abuse after the other beside a polite caller, and return what both suffered.

    A kind that slows down others too much is measured again, up to three times in all, and then the time counts in
    which others were fastest: what else the machine does can only slow them down. Of the memory, the most counts.

    Args:
        plan: of the experiment.
        server: the server.
        kinds: the kinds of abuse.
        act: does one kind of abuse; what it does in the block of the context manager is measured.
        max_mebibytes: how much more memory the server may take.
        metadata: the credential of the polite caller.
    """
    port = await server.port()
    async with clients_as(port, metadata) as clients:
        user = await clients.create_user()
    abuse = _Abuse(plan, server)
    left: Collection[str] = kinds
    for _ in range(1 if plan.smoke else _MAX_ROUNDS):
        async with apart(call_politely, port, user.id, user.username, metadata) as caller:
            # The server and the caller warm up.
            await caller.until_counted(plan.size(full=500, smoke=100))
            abuse.begin()
            for kind in left:
                await act(kind, abuse.measuring(kind))
            abuse.add(await caller.result())
        left = [kind for kind, ratio in abuse.ratios().items() if ratio >= MAX_RATIO]
        if not left:
            break
    return abuse.result(max_mebibytes)


class _Abuse:
    """Measures kinds of abuse, each after a quiet time.

    Args:
        plan: of the experiment.
        server: the server.
    """

    def __init__(self, plan: Plan, server: Process) -> None:
        self._quiet_seconds = plan.size(full=4, smoke=1)
        self._server = server
        self._before: float | None = None
        self._experience = Experience()
        self._quiet: list[tuple[float, float]] = []
        self._abused: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self._mebibytes: defaultdict[str, float] = defaultdict(float)

    def begin(self) -> None:
        """Measure the memory of the server, if it has not been abused yet."""
        if self._before is None:
            self._before = peak_mebibytes(self._server.pid)

    @asynccontextmanager
    async def measuring(self, kind: str) -> AsyncIterator[None]:
        """Measure what happens in the block, after a quiet time."""
        assert self._before is not None
        start = time.monotonic()
        await asyncio.sleep(self._quiet_seconds)
        self._quiet.append((start, time.monotonic()))
        forget_peak(self._server.pid)
        start = time.monotonic()
        yield
        self._abused[kind].append((start, time.monotonic()))
        self._mebibytes[kind] = max(self._mebibytes[kind], peak_mebibytes(self._server.pid) - self._before)
        await asyncio.sleep(_PAUSE_SECONDS)

    def add(self, experience: Experience) -> None:
        """Add what the polite caller has seen during some of the abuse."""
        self._experience.calls += experience.calls
        self._experience.failures += experience.failures

    def ratios(self) -> dict[str, float]:
        """Return how many times as long calls took, at the 99th percentile, by the kind of abuse."""
        quiet = self._experience.p99_ms(self._quiet)
        return {
            kind: min(self._experience.p99_ms([period]) for period in periods) / quiet
            for kind, periods in self._abused.items()
        }

    def result(self, max_mebibytes: float) -> Result:
        """Return what the polite caller and the server suffered."""
        experience, ratios = self._experience, self.ratios()
        slowest = max(ratios, key=ratios.__getitem__)
        largest = max(self._mebibytes, key=self._mebibytes.__getitem__)
        again = sum(len(periods) > 1 for periods in self._abused.values())
        result = Result(
            {
                "calls of others": len(experience.calls),
                "failed": experience.failures.total(),
                "quiet p99, ms": experience.p99_ms(self._quiet),
                "largest ratio of p99": f"{ratios[slowest]:.2f} ({slowest})",
                "measured again": again,
                "largest growth, MiB": f"{self._mebibytes[largest]:.0f} ({largest})",
            }
        )
        result.require(not experience.failures, f"calls of others failed: {dict(experience.failures)}")
        result.require(self._server.running, "the server has ended")
        for kind, mebibytes in self._mebibytes.items():
            result.require(mebibytes < max_mebibytes, f"{kind}: the server used {mebibytes:.0f} MiB more")
        for kind, ratio in ratios.items():
            result.require_in_time(ratio < MAX_RATIO, f"{kind}: the p99 of others became {ratio:.1f} times as long")
        return result
