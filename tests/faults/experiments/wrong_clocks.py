"""A server whose clock is an hour ahead, or behind, beside one whose clock is right."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg
import commerce.orders.v1.order_service_pb2 as pb

from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, NotPossible, Plan, Result
from tests.faults.history import violations
from tests.faults.shoppers import shop, watch
from tests.faults.stored import stored_orders, watched_events
from tests.faults.without import without
from tests.support.clients import Clients, connect, new_order
from tests.support.clocks import wrong_clock
from tests.support.databases import driver_connection
from tests.support.processes import COMMAND, run_command, serving
from tests.support.waiting import eventually

_HOUR = 3600
_USERS = 8
_PAGE = 7
# Of each order: events that are older than the one before, and changes before the creation.
_BACKWARDS = """
SELECT count(*) FROM (
    SELECT create_time < lag(create_time) OVER (PARTITION BY aggregate_id ORDER BY xid, position) AS backwards
    FROM events WHERE aggregate_type = 'order'
) e WHERE backwards
"""
# Entries of the ledger whose balance is not that of the entry before, plus their amount.
_BROKEN_CHAIN = """
SELECT count(*) FROM (
    SELECT amount, balance_after,
           lag(balance_after) OVER (PARTITION BY user_id, account, currency ORDER BY position) AS before
    FROM credit_entries WHERE user_id IS NOT NULL
) e WHERE balance_after <> coalesce(before, 0) + amount
"""
_KEPT = """
SELECT (SELECT count(*) FROM request_ids) AS request_ids,
       (SELECT count(*) FROM events WHERE aggregate_type = 'order') AS events,
       (SELECT sum(held) FROM credit_accounts) AS held
"""


async def _run(plan: Plan) -> Result:
    return await _wrong_clocks(plan, plan.size(full=4_000, smoke=200), COMMAND)


async def _control(plan: Plan) -> Result:
    program = without("service.domain.events:Entity.changed=tests.faults.replacements:changed_by_the_clock")
    return await _wrong_clocks(plan, 500, program)


async def _wrong_clocks(plan: Plan, calls: int, program: Sequence[str]) -> Result:
    result = Result(dict.fromkeys(("calls", "orders", "violations", "unexpected failures"), 0))
    for seconds in (_HOUR,) if plan.smoke else (_HOUR, -_HOUR):
        variables = wrong_clock(plan.folder, seconds)
        if variables is None:
            raise NotPossible("a wrong clock needs a C compiler (gcc)")
        async with (
            plan.database() as url,
            driver_connection(url) as connection,
            serving(url, program=program) as right,
            serving(url, program=program, variables=variables) as wrong,
        ):
            users = await create_users(url, _USERS)
            ports = [await right.port(), await wrong.port()]
            await _try(result, plan, url, connection, ports, users, calls)
            await _collect_garbage(result, url, connection, variables)
            for server in (right, wrong):
                errors = [line for line in server.stderr().splitlines() if '"level":"error"' in line]
                result.require(not errors, f"a server logged errors: {errors[:1]}")
    return result


async def _try(
    result: Result,
    plan: Plan,
    url: str,
    connection: asyncpg.Connection,
    ports: Sequence[int],
    users: Sequence[str],
    calls: int,
) -> None:
    async with (
        apart(shop, ports, users, plan.seed, callers=16) as shoppers,
        apart(watch, ports, plan.seed) as watcher,
    ):
        await shoppers.until_counted(calls)
        history = await shoppers.result()
        orders, events = await stored_orders(url), await watched_events(url)
        await eventually(lambda: watcher.counted >= len(events), 60)
        watched = await watcher.result()
    found = list(violations(history, orders))
    counts = (len(history.operations), len(orders), len(found), len(history.unexpected))
    for name, count in zip(result.figures, counts, strict=True):
        result.figures[name] = int(result.figures[name]) + count
    result.require(not found, "; ".join(found[:3]))
    result.require(not history.unexpected, f"calls failed unexpectedly: {history.unexpected[:3]}")
    result.require(watched["events"] == events, "the watcher did not get every event once and in order")
    result.require(await connection.fetchval(_BACKWARDS) == 0, "the time of an order ran backwards")
    result.require(await connection.fetchval(_BROKEN_CHAIN) == 0, "the balances of the ledger do not follow each other")
    async with connect(ports[0], own_connection=True) as right, connect(ports[1], own_connection=True) as wrong:
        listed = await _listed((right, wrong))
        result.require(sorted(listed) == sorted(orders), "pages skip or repeat an order")
        request = pb.CreateOrderRequest(
            order=new_order(users[0]), request_id=str(UUID(int=plan.random().getrandbits(128), version=4))
        )
        first, again = await right.orders.CreateOrder(request), await wrong.orders.CreateOrder(request)
        result.require(first == again, "a request id was not recognised by the other server")


async def _listed(servers: Sequence[Clients]) -> Sequence[str]:
    """Return the ids of all orders, from pages that the servers return in turn."""
    found: list[str] = []
    request = pb.ListOrdersRequest(page_size=_PAGE)
    while True:
        for clients in servers:
            page = await clients.orders.ListOrders(request)
            found += [order.id for order in page.orders]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


async def _collect_garbage(
    result: Result, url: str, connection: asyncpg.Connection, variables: Mapping[str, str]
) -> None:
    """Run `commerce gc` by the wrong clock: it must delete nothing and release no hold, because all is new."""
    before = await connection.fetchrow(_KEPT)
    collected = await run_command("gc", database_url=url, variables=variables)
    result.require(collected.status == 0, f"gc failed: {collected.stderr[-300:]}")
    after = await connection.fetchrow(_KEPT)
    result.require(dict(after) == dict(before), f"gc left {dict(after)} of {dict(before)}: {collected.stdout}")


EXPERIMENT = Experiment(
    name="wrong-clocks",
    fault="the clock of one of two servers is an hour ahead, then an hour behind",
    passes="no violation as in random-workload; page tokens, cursors and request ids hold on both servers, no time of "
    "an order runs backwards, gc releases no hold and deletes nothing too early",
    run=_run,
    control=_control,
    defence="times of an order that never run backwards",
)
