"""Looks at the running calls of a server, and at the connections of its pools, at one moment."""

import asyncio
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import CoroutineType
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.connections.engine import lost_connections
from service.db.connections.slots import Slots
from service.db.database import Database
from service.db.events.feed import PollingEventFeed
from service.db.reads.snapshots import Snapshots
from service.db.writes.transaction import LazyTransaction
from service.debugging.await_chains import Chain, completed_by, context_of, follow
from service.debugging.states import State, backend_of, connection_of, driver_connection, state_of
from service.rpc.admission.admission import Admission
from service.rpc.call_context import CallContext
from service.rpc.interceptors.access_log import AccessLogInterceptor
from service.rpc.interceptors.transaction import TransactionInterceptor
from service.rpc.streams.exports import Exports
from service.rpc.transport.accepting import AcceptingServer

# How many tasks are looked at in one turn of the event loop.
_TASKS_IN_A_TURN = 50
# The most calls and other tasks that are looked at: the oldest calls.
MOST_CALLS = 1000
_MOST_OTHERS = 1000


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a server that are looked at."""

    database: Database
    feed: PollingEventFeed
    snapshots: Snapshots
    admission: Admission | None
    access_log: AccessLogInterceptor
    server: AcceptingServer
    through_pgbouncer: bool

    def is_stream(self, path: str) -> bool:
        """Return whether a method streams requests or responses."""
        service, _, name = path.lstrip("/").partition("/")
        handler = self.server._handlers.get(service, {}).get(name)
        return handler is not None and bool(handler.request_streaming or handler.response_streaming)

    def pools(self) -> Mapping[str, Slots]:
        """Return who shares the connections of pools, by name."""
        replica = {"replica": self.database.replica.slots} if self.database.replica else {}
        return {**self.database.pools, "events": self.feed.slots, **replica}

    def engines(self) -> Iterator[tuple[str, AsyncEngine]]:
        """Yield all engines, each with the name of its pool."""
        yield "calls", self.database.engine
        yield "probe", self.database._probe_engine
        yield "events", self.feed._engine
        yield "exports", self.snapshots._engine
        if self.database.replica:
            yield "replica", self.database.replica._engine


class RunningCall(NamedTuple):
    """A call that runs, or a write that goes on after its client has gone.

    Attributes:
        path: of its method; empty if that is not known any longer.
        began: when it began, in the seconds of `time.perf_counter`; None if that is not known any longer.
        context: its context.
        chain: what it waits for.
        state: what it does.
    """

    path: str
    began: float | None
    context: CallContext
    chain: Chain
    state: State


class UsedConnection(NamedTuple):
    """A connection that is not idle in its pool.

    Attributes:
        pid: the process id of its backend in PostgreSQL.
        pool: the name of its pool.
        seconds: how long it has been used for what it is used for now; None if that is not known, as in the first half
            of a second of a statement.
        is_transaction: whether it is in a transaction.
        state: what its user does.
        calls: the calls that use it; none if the server itself does.
        user: the function of the server that uses it, if no call does.
    """

    pid: int
    pool: str
    seconds: float | None
    is_transaction: bool
    state: State | None
    calls: Sequence[RunningCall]
    user: str


class Observation(NamedTuple):
    """What was seen.

    Attributes:
        calls: the running calls, the oldest first.
        connections: the connections in use.
        not_shown: how many running calls were not looked at.
    """

    calls: Sequence[RunningCall]
    connections: Sequence[UsedConnection]
    not_shown: int


def observe(
    parts: Parts, loop: asyncio.AbstractEventLoop, observer: asyncio.Task[Any] | None
) -> Generator[None, None, Observation]:
    """Look at the calls and connections of a server; yields after each part that one turn of the event loop may take.

    Run it in the thread of the event loop, or while that is stuck: otherwise what is seen changes meanwhile.

    Args:
        parts: the parts of the server.
        loop: its event loop.
        observer: the task that looks; None if a thread does.
    """
    running = sorted(parts.access_log.tasks.items(), key=lambda item: item[1][1])
    # What is seen must not refer to itself.
    tasks = {task for task in asyncio.all_tasks(loop) if task is not observer}
    yield
    completing = completed_by(tasks)
    yield
    names = {id(slots): name for name, slots in parts.pools().items()}
    transactions = {transaction.task: transaction for transaction in list(parts.database._transaction_pool.begun)}
    calls: list[RunningCall] = []
    for number, (task, (path, began, context)) in enumerate(running[:MOST_CALLS]):
        chain = follow(task, completing)
        calls.append(RunningCall(path, began, context, chain, _state(chain, names, transactions)))
        if number % _TASKS_IN_A_TURN == 0:
            yield
    followed = {task for call in calls for task in call.chain.tasks}
    others: list[tuple[Chain, State]] = []
    for number, task in enumerate(islice(_own(tasks - followed), _MOST_OTHERS)):
        chain = follow(task, completing)
        others.append((chain, _state(chain, names, transactions)))
        if number % _TASKS_IN_A_TURN == 0:
            yield
    calls += _of_clients_that_have_gone(others, [call for _, call in running])
    began_at = {transaction: transaction.began for transaction in transactions.values()}
    connections = list(_connections(parts, calls, others, began_at))
    return Observation(calls, connections, max(0, len(running) - MOST_CALLS))


def _state(chain: Chain, names: Mapping[int, str], transactions: Mapping[Any, LazyTransaction]) -> State:
    """Return what a task does, with the connection of its transaction or export also while that runs no statement."""
    state = state_of(chain, names)
    if state.connection is not None:
        return state
    if transaction := next(filter(None, map(transactions.get, chain.tasks)), None):
        return state._replace(connection=connection_of(transaction))
    return state._replace(connection=_connection_of_export(chain))


def _connection_of_export(chain: Chain) -> Any:  # noqa: ANN401 - asyncpg has no types
    """Return the connection of the snapshot that an export reads; None for anything else."""
    for step in chain.steps:
        if not step.frame or step.frame.f_code is not Exports.run.__code__:
            continue
        if opened := step.frame.f_locals.get("snapshot"):
            return driver_connection(opened.users._reader._connection.sync_connection)
    return None


def _own(tasks: Iterable[asyncio.Task[Any]]) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks of functions in Python: the others are gRPC's."""
    return (task for task in tasks if isinstance(task.get_coro(), CoroutineType))


def _of_clients_that_have_gone(
    others: Iterable[tuple[Chain, State]], running: Iterable[tuple[str, float, CallContext]]
) -> Iterator[RunningCall]:
    """Yield the calls whose work goes on in tasks of their own, on connections, although their clients have gone."""
    known = {id(context) for _, _, context in running}
    for chain, state in others:
        # A batch may have the context of any of its calls.
        if state.connection is None or state.shared_by:
            continue
        context = context_of(chain.tasks[0])
        values = context.values() if context else ()
        call_context = next((value for value in values if isinstance(value, CallContext)), None)
        if call_context and id(call_context) not in known:
            known.add(id(call_context))
            yield RunningCall(_path_of(chain), None, call_context, chain, state)


def _path_of(chain: Chain) -> str:
    """Return the path of the method whose write a task does; empty if it does none."""
    for step in chain.steps:
        if step.frame and step.frame.f_code is TransactionInterceptor._committed.__code__:
            path: str = step.frame.f_locals["method"].path
            return path
    return ""


def _connections(
    parts: Parts,
    calls: Sequence[RunningCall],
    others: Sequence[tuple[Chain, State]],
    began_at: Mapping[LazyTransaction, float],
) -> Iterator[UsedConnection]:
    in_transactions = [(connection_of(transaction), began) for transaction, began in began_at.items()]
    # Of tasks that wait for each other, the one that no other waits for tells the most.
    others = sorted(others, key=lambda other: -len(other[0].tasks))
    now, call_now = time.monotonic(), time.perf_counter()
    for pool, engine in parts.engines():
        lost = lost_connections(engine)
        for connection in list(lost._open_connections(idle=False)):
            if (pid := backend_of(connection)) is None:
                continue
            users = [call for call in calls if call.state.connection is connection]
            began = next((began for other, began in in_transactions if other is connection), None)
            seconds: float | None = None
            if began is not None:
                seconds = now - began
            elif use := lost._uses.get(connection):
                seconds = now - use.since
            elif pool == "exports" and users and users[0].began is not None:
                # Each has a connection of its own.
                seconds = call_now - users[0].began
            user, state = next(
                ((chain.steps[0].name, state) for chain, state in others if state.connection is connection), ("", None)
            )
            if users:
                user, state = "", users[0].state
            yield UsedConnection(pid, pool, seconds, began is not None, state, users, user)
