"""What a call does, in words: which of the places where calls wait it is in."""

from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import ExecutionContext

from service.db.connections.batching import Batcher
from service.db.connections.executor import StatementExecutor
from service.db.connections.measured import statement_name
from service.db.connections.slots import Slots
from service.db.events.watcher import Watcher
from service.db.reads.snapshots import Snapshots
from service.db.writes.transaction import LazyTransaction
from service.debugging.await_chains import Chain
from service.passwords import Argon2Passwords, Turns
from service.rpc.admission.gate import Gate
from service.rpc.retry import retried
from service.runtime.loop_turns import LoopTurns

# Where SQLAlchemy runs statements: its functions have the execution context in a variable.
_SQLALCHEMY = "sqlalchemy.engine.base"
_OURS = "service."
# The functions of gRPC in which a call waits for its client.
_CLIENT_WAITS = {
    "_send_message": "waiting for its client to read",
    "_receive_message": "waiting for its client to send",
}
# The functions in which a call waits for something else than a statement. The innermost one says what it is.
_WAITS: Mapping[CodeType, str] = {
    Gate.wait.__code__: "waiting for admission",
    Batcher.submit.__code__: "waiting for a batch to begin",
    StatementExecutor._check_out.__code__: "waiting for a connection to open",
    StatementExecutor._execute.__code__: "waiting for a connection to open",
    LazyTransaction._begin.__code__: "waiting for a connection to open",
    Snapshots._wait.__code__: "waiting for another export to end",
    Turns.take.__code__: "waiting for a password thread",
    Argon2Passwords._run.__code__: "hashing a password",
    LoopTurns.take.__code__: "waiting for its turn on the event loop",
    Watcher.wait.__code__: "waiting for events",
}
# How a transaction ends.
_ENDS: Mapping[CodeType, str] = {LazyTransaction.commit.__code__: "commit", LazyTransaction.close.__code__: "rollback"}


class State(NamedTuple):
    """What a call, or another task, does.

    Attributes:
        words: what it does, such as "waiting for admission".
        statement: the name of the statement that it runs; empty without one.
        connection: the connection on which it does, which is asyncpg's; None without one.
        shared_by: how many calls share the statement, if a batch runs it; else 0.
    """

    words: str
    statement: str = ""
    connection: Any = None
    shared_by: int = 0


def state_of(chain: Chain, pools: Mapping[int, str]) -> State:
    """Return what a task does.

    Args:
        chain: what it waits for.
        pools: the names of pools, by the ids of their slots.
    """
    inner = ""
    for step in reversed(chain.steps):
        frame, inner_name, inner = step.frame, inner, step.name
        if frame is None:
            if words := _CLIENT_WAITS.get(step.name.rpartition(".")[2]):
                return State(words)
            continue
        if state := _state_in_statement(frame, chain):
            return state
        code = frame.f_code
        if code is Slots.take.__code__:
            pool = pools.get(id(frame.f_locals["self"]))
            return State(f"waiting for a connection of {pool}" if pool else "waiting for a connection")
        if code is retried.__code__ and inner_name == "sleep":
            return State("pausing before the next attempt")
        if words := _WAITS.get(code):
            return State(words)
    return State("running" if chain.is_ready else "waiting")


def where(chain: Chain) -> str:
    """Return the innermost function of the service in a chain, with its line; empty if there is none."""
    for step in reversed(chain.steps):
        if step.frame is not None and step.frame.f_globals.get("__name__", "").startswith(_OURS):
            return described(step.frame)
    return ""


def described(frame: FrameType) -> str:
    """Return the function and the line of a frame, such as `service.rpc.retry:retried:45`."""
    return f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}:{frame.f_lineno}"


def backend_of(connection: Any) -> int | None:  # noqa: ANN401 - asyncpg has no types
    """Return the process id of the backend of an asyncpg connection; None without one, or if it is closed."""
    if connection is None or connection.is_closed():
        return None
    pid: int = connection.get_server_pid()
    return pid


def connection_of(transaction: LazyTransaction) -> Any:  # noqa: ANN401 - as above
    """Return the connection of a transaction, which is asyncpg's; None while it has none."""
    return driver_connection(transaction._connection.sync_connection if transaction._connection else None)


def driver_connection(connection: Connection | None) -> Any:  # noqa: ANN401 - as above
    """Return the connection of asyncpg that one of SQLAlchemy has; None without one."""
    # Its public attribute would open another connection if this one is lost.
    pooled = None if connection is None else connection._dbapi_connection
    return None if pooled is None else pooled.driver_connection


def _state_in_statement(frame: FrameType, chain: Chain) -> State | None:
    if frame.f_code is StatementExecutor._fetch.__code__:
        values = frame.f_locals
        name, connection = values["statement"].name, values["pooled"].driver_connection
        return State("in statement", name, connection, _sharing(chain))
    if frame.f_globals.get("__name__") == _SQLALCHEMY:
        for value in frame.f_locals.values():
            if isinstance(value, ExecutionContext):
                return State("in statement", statement_name(value), driver_connection(value.root_connection))
    if name := _ENDS.get(frame.f_code):
        return State("in statement", name, connection_of(frame.f_locals["self"]))
    return None


def _sharing(chain: Chain) -> int:
    """Return how many calls share the batch that a task runs or waits for; 0 without one."""
    batches = (step.frame for step in chain.steps if step.frame and step.frame.f_code is Batcher._run_batch.__code__)
    return max((len(frame.f_locals["batch"]) for frame in batches), default=0)
