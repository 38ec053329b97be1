"""Random calls of many callers while servers and databases fail, and a check of everything that they saw."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.failovers import Pair, running_pair
from tests.faults.history import History, Order, balances, violations
from tests.faults.shoppers import shop, watch
from tests.faults.stored import stored_credit, stored_orders, watched_events
from tests.support.databases import observing
from tests.support.processes import Process, free_port, run_command, serving
from tests.support.waiting import eventually

_USERS = 16
_PAUSE_SECONDS = 3.0
_CATCH_UP_SECONDS = 60.0


class Servers:
    """Two servers on ports of their own, which are killed and started again."""

    def __init__(self, url: str) -> None:
        self.ports = [free_port(), free_port()]
        self._url = url
        self._stacks = [AsyncExitStack() for _ in self.ports]
        self._processes: dict[int, Process] = {}
        self._errors: list[str] = []

    async def start(self, number: int) -> None:
        """Start one of them."""
        serve = serving(self._url, self.ports[number])
        self._processes[number] = await self._stacks[number].enter_async_context(serve)

    async def kill(self, number: int) -> None:
        """Kill one of them."""
        self._errors += self._errors_of(number)
        await self._stacks[number].aclose()

    def errors(self) -> list[str]:
        """Return the lines that the servers have logged at level error, also those that were killed."""
        return self._errors + [line for number in self._processes for line in self._errors_of(number)]

    def _errors_of(self, number: int) -> list[str]:
        return [line for line in self._processes[number].stderr().splitlines() if '"level":"error"' in line]


@asynccontextmanager
async def _servers(url: str) -> AsyncIterator[Servers]:
    servers = Servers(url)
    try:
        for number in range(len(servers.ports)):
            await servers.start(number)
        yield servers
    finally:
        for number in range(len(servers.ports)):
            await servers.kill(number)


async def _run(plan: Plan) -> Result:
    return await _workload(plan, plan.size(full=300, smoke=4), callers=plan.size(full=64, smoke=16))


async def _control(plan: Plan) -> Result:
    return await _workload(plan, 40, callers=64, with_request_id=False)


async def _workload(plan: Plan, seconds: int, *, callers: int, with_request_id: bool = True) -> Result:
    random = plan.random()
    injected: dict[str, int] = {}
    async with running_pair(plan.folder) as pair:
        users = await create_users(pair.primary_url, _USERS)
        async with _servers(pair.url) as servers:
            faults = _faults(pair, servers)
            if plan.smoke:
                # A failover takes seconds.
                faults = {name: fault for name, fault in faults.items() if name != "failovers"}
            async with (
                apart(
                    shop, servers.ports, users, plan.seed, callers=callers, with_request_id=with_request_id
                ) as shoppers,
                apart(watch, servers.ports, plan.seed) as watcher,
            ):
                await shoppers.until_counted(200)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    # Each of them, before one is repeated.
                    for name in random.sample([*faults], len(faults)):
                        await asyncio.sleep(random.uniform(0, 2 * _PAUSE_SECONDS) if not plan.smoke else 0)
                        await faults[name]()
                        injected[name] = injected.get(name, 0) + 1
                        await shoppers.until_counted(100)
                        if time.monotonic() > end:
                            break
                history = await shoppers.result()
                url = pair.primary_url
                orders, events = await stored_orders(url), await watched_events(url)
                with suppress(AssertionError):
                    await eventually(lambda: watcher.counted >= len(events), _CATCH_UP_SECONDS)
                watched = await watcher.result()
                errors = servers.errors()
        credit = await stored_credit(url)
        ledger = await run_command("verify-ledger", database_url=url)
    found = list(violations(history, orders))
    found += _wrong_balances(history, orders, credit)
    if watched["events"] != events:
        found.append(f"the watcher got {len(watched['events'])} events of {len(events)}, or in another order")
    result = Result(
        {
            "calls": len(history.operations) + len(history.granted) + len(history.moved),
            "failed attempts": history.attempts.total(),
            "orders": len(orders),
            "events": len(events),
            **injected,
            "ended watches": sum(watched["failures"].values()),
            "violations": len(found),
        }
    )
    result.require(not found, "; ".join(found[:3]))
    result.require(not history.unexpected, f"calls failed unexpectedly: {history.unexpected[:3]}")
    result.require(ledger.status == 0, f"the ledger is wrong: {ledger.stdout[-300:]}{ledger.stderr[-300:]}")
    result.require(not errors, f"servers logged errors: {errors[:1]}")
    return result


def _faults(pair: Pair, servers: Servers) -> Mapping[str, Callable[[], Awaitable[None]]]:
    async def kill_server(number: int) -> None:
        await servers.kill(number)
        await servers.start(number)

    async def kill_backend() -> None:
        async with observing(pair.primary_url) as observer:
            backends = await eventually(observer.backends)
        await pair.primary.crash(min(backends))
        await pair.primary.until_accepting(pair.primary.url)

    async def terminate_backends() -> None:
        with suppress(asyncpg.PostgresError, OSError):
            async with observing(pair.primary_url) as observer:
                await observer.connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", list(await observer.backends())
                )

    return {
        "kills of a server": lambda: kill_server(0),
        "kills of the other server": lambda: kill_server(1),
        "kills of a backend": kill_backend,
        "terminations of all backends": terminate_backends,
        "kills of PostgreSQL": pair.restart,
        "failovers": pair.fail_over,
    }


def _wrong_balances(history: History, orders: Mapping[str, Order], stored: Mapping[str, tuple[int, int]]) -> list[str]:
    if history.paid.keys() - orders.keys():
        return []
    expected = balances(history, orders)
    return [
        f"user {user_id} has {stored.get(user_id, (0, 0))} cents, and should have {cents}"
        for user_id, cents in expected.items()
        if stored.get(user_id, (0, 0)) != cents
    ]


EXPERIMENT = Experiment(
    name="random-workload",
    fault="64 callers make random calls to 2 servers for 5 minutes, while servers, backends and PostgreSQL are killed "
    "and its standby takes over",
    passes="no violation: each order is linearizable, credit is conserved, each request is done once, a watcher sees "
    "every event once and in order",
    run=_run,
    control=_control,
    defence="request ids",
)
