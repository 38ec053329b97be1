"""The answers to `commerce debug`: what a server does now, as values of JSON."""

import asyncio
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import structlog

from service.application.ports.errors import Overloaded, StoreError
from service.db.operations.activity import Session, sessions
from service.db.operations.readiness import describe_store_error
from service.debugging.channels import channels
from service.debugging.endpoint import CannotAnswer, Endpoint
from service.debugging.observation import Observation, Parts, RunningCall, UsedConnection, observe
from service.debugging.profiler import profile
from service.debugging.states import backend_of, described, where

# How long the event loop has to answer; else it is stuck. It needs milliseconds, and a little for each call.
_LOOP_SECONDS = 2.0
# How long PostgreSQL has: longer than the probe's pool lets a statement wait for its connection and for its answer.
_DATABASE_SECONDS = 8.0
_MOST_PROFILE_SECONDS = 60.0
# Of W3C Trace Context: the id of the trace.
_TRACE = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_DIGITS = 3

T = TypeVar("T")

log = structlog.get_logger()


class Debugging:
    """Answers the questions of `commerce debug` about one server, from `start` to `close`.

    Args:
        parts: the parts of the server.
        port: its TCP port; 0 without one.
        worker: its number among workers; None if it is none of several.
        is_draining: returns whether it drains.
    """

    def __init__(self, parts: Parts, *, port: int, worker: int | None, is_draining: Callable[[], bool]) -> None:
        self._parts = parts
        self._process = {"pid": os.getpid(), "worker": worker, "port": port, "version": version("commerce-service")}
        self._is_draining = is_draining
        self._started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._profiling = threading.Lock()
        self._endpoint = Endpoint(self._answer)

    def start(self) -> None:
        """Open the debug socket, in the thread of the event loop; logs if the system denies it."""
        try:
            self._endpoint.open()
        except OSError as error:
            # It is not worth a server.
            log.warning("`commerce debug` will find no server here", reason=error.strerror)

    def close(self) -> None:
        """Close the debug socket."""
        self._endpoint.close()

    def _answer(self, question: Mapping[str, Any], has_gone: Callable[[], bool]) -> Mapping[str, Any]:
        match question.get("ask"):
            case "calls":
                answer = self._calls(with_stacks=bool(question.get("stacks")))
            case "pool":
                answer = self._pool()
            case "statements":
                answer = self._statements()
            case "channels":
                answer = channels()
            case "profile":
                answer = self._profile(question, has_gone)
            case _:
                raise CannotAnswer("it does not know this question: it is of another release than this command")
        return {"process": self._described(), **answer}

    def _described(self) -> dict[str, Any]:
        return {
            **self._process,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "draining": self._is_draining(),
        }

    def _calls(self, *, with_stacks: bool) -> dict[str, Any]:
        observed, event_loop = self._observe()
        counts: dict[str, int] = {}
        for path, _, _ in list(self._parts.access_log.tasks.values()):
            counts[path] = counts.get(path, 0) + 1
        admission = self._parts.admission
        gates = {path: gate for path, gate in admission.gates.items() if gate.callers} if admission else {}
        methods = [
            {
                "method": path.lstrip("/"),
                "running": counts.get(path, 0),
                "waiting_for_admission": gates[path].waiting if path in gates else 0,
                "limit": gates[path].limit.value if path in gates else None,
            }
            for path in sorted({*counts, *gates}, key=lambda path: -counts.get(path, 0))
        ]
        # Their tasks end when their clients have read the responses.
        transferring = len(self._parts.server._limit.calls - self._parts.access_log.tasks.keys())
        return {
            "event_loop": event_loop,
            "methods": methods,
            "being_received_or_sent": transferring,
            "calls": [self._call(call, with_stack=with_stacks) for call in observed.calls],
            "not_shown": observed.not_shown,
        }

    def _pool(self) -> dict[str, Any]:
        observed, event_loop = self._observe()
        pools = [
            {"pool": name, "size": slots.size, "in_use": slots.in_use, "waiting": slots.waiting}
            for name, slots in self._parts.pools().items()
        ]
        connections = [self._connection(used) for used in observed.connections]
        return {"event_loop": event_loop, "pools": pools, "connections": connections}

    def _statements(self) -> dict[str, Any]:
        observed, event_loop = self._observe()
        replica = self._parts.database.replica
        servers = {"primary": self._parts.database._probe_engine}
        if replica:
            servers["replica"] = replica._probe_engines[1]
        answer: dict[str, Any] = {"event_loop": event_loop, "sessions": [], "problems": {}}
        through_pgbouncer = self._parts.through_pgbouncer
        for name, engine in servers.items():
            used = {each.pid: each for each in observed.connections if (each.pool == "replica") == (name == "replica")}
            if not event_loop["answers"]:
                answer["problems"][name] = "that needs the event loop, which is stuck"
                continue
            try:
                found = self._in_loop(sessions(engine, None if through_pgbouncer else used), _DATABASE_SECONDS)
            except TimeoutError:
                answer["problems"][name] = "it does not answer"
            except StoreError as error:
                answer["problems"][name] = describe_store_error(error)
            except Overloaded:
                answer["problems"][name] = "the connection to ask it is in use"
            else:
                if through_pgbouncer:
                    # It gives connections numbers of its own.
                    used = {}
                answer["sessions"] += [self._session(name, each, used.get(each.pid)) for each in found]
        answer["sessions"].sort(key=lambda session: -(session["seconds"] or 0))
        return answer

    def _profile(self, question: Mapping[str, Any], has_gone: Callable[[], bool]) -> dict[str, Any]:
        seconds = question.get("seconds")
        if not isinstance(seconds, int | float) or not 0 < seconds <= _MOST_PROFILE_SECONDS:
            raise CannotAnswer(f"a profile takes up to {_MOST_PROFILE_SECONDS:.0f} s")
        only = self._loop_thread if question.get("wall") else None
        if not self._profiling.acquire(blocking=False):
            raise CannotAnswer("it is being profiled already: ask again later")
        try:
            found = profile(seconds, lambda: not has_gone(), only=only)
        finally:
            self._profiling.release()
        return {
            "kind": "cpu" if only is None else "wall",
            "seconds": round(found.seconds, _DIGITS),
            "looks": found.looks,
            "threads": {name: round(used, 2) for name, used in found.threads.items()},
            "stacks_microseconds": found.stacks,
        }

    def _observe(self) -> tuple[Observation, dict[str, Any]]:
        """Return what is seen of the server, and whether its event loop answers."""
        asked = time.monotonic()

        async def look() -> tuple[Observation, float]:
            lag = time.monotonic() - asked
            return await _by_and_by(observe(self._parts, self._loop, asyncio.current_task())), lag

        try:
            observed, lag = self._in_loop(look(), _LOOP_SECONDS)
        except TimeoutError:
            return _immediately(observe(self._parts, self._loop, None)), {"answers": False, "at": self._loop_stack()}
        return observed, {"answers": True, "lag_seconds": round(lag, 4)}

    def _in_loop(self, work: Any, seconds: float) -> Any:  # noqa: ANN401 - of any type
        """Run a coroutine in the event loop; raises TimeoutError if it takes too long, and its errors."""
        try:
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise CannotAnswer("it has ended") from error
        try:
            return running.result(seconds)
        except TimeoutError:
            running.cancel()
            raise

    def _loop_stack(self) -> list[str]:
        """Return the functions that the thread of the event loop is in, the innermost first."""
        frame = sys._current_frames().get(self._loop_thread)
        functions = []
        while frame:
            functions.append(described(frame))
            frame = frame.f_back
        return functions

    def _call(self, call: RunningCall, *, with_stack: bool) -> dict[str, Any]:
        context, state = call.context, call.state
        caller, left = context.caller, context.time_left()
        traceparent = context.metadata.get("traceparent")
        trace = _TRACE.fullmatch(traceparent) if isinstance(traceparent, str) else None
        shown: dict[str, Any] = {
            "method": call.path.lstrip("/"),
            "client_has_gone": call.began is None,
            "age_seconds": None if call.began is None else round(time.perf_counter() - call.began, _DIGITS),
            "seconds_left": None if math.isinf(left) else round(left, _DIGITS),
            "caller": caller.name,
            "on_behalf_of": None if caller.end_user is None else str(caller.end_user),
            "x_request_id": context.x_request_id,
            "trace_id": trace[1] if trace else None,
            "state": self._words(call),
            "statement": state.statement or None,
            "connection": backend_of(state.connection),
            "shared_by": state.shared_by,
            "at": where(call.chain),
        }
        if with_stack:
            shown["stack"] = [described(step.frame) if step.frame else step.name for step in call.chain.steps[::-1]]
        return shown

    def _words(self, call: RunningCall) -> str:
        words = call.state.words
        if not self._parts.is_stream(call.path):
            return words
        return "streaming" if words in {"running", "waiting"} else f"streaming: {words}"

    def _connection(self, used: UsedConnection) -> dict[str, Any]:
        state = used.state
        return {
            "connection": used.pid,
            "pool": used.pool,
            "seconds": None if used.seconds is None else round(used.seconds, _DIGITS),
            "in_transaction": used.is_transaction,
            "statement": (state.statement or None) if state else None,
            "calls": [self._call(call, with_stack=False) for call in used.calls],
            "function": used.user or None,
        }

    def _session(self, server: str, session: Session, used: UsedConnection | None) -> dict[str, Any]:
        seconds, in_transaction = session.statement_seconds, session.transaction_seconds
        return {
            "server": server,
            "connection": session.pid,
            "is_ours": used is not None or self._parts.through_pgbouncer,
            "application": session.application,
            "user": session.user,
            "state": session.state,
            "statement": used.state.statement or None if used and used.state else None,
            "seconds": None if seconds is None else round(seconds, _DIGITS),
            "transaction_seconds": None if in_transaction is None else round(in_transaction, _DIGITS),
            "waits_for": session.wait or None,
            "blocked_by": list(session.blocked_by),
            "calls": [self._call(call, with_stack=False) for call in used.calls] if used else [],
        }


async def _by_and_by(work: Generator[None, None, T]) -> T:
    """Run a generator, one part in each turn of the event loop, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


def _immediately(work: Generator[None, None, T]) -> T:
    """Run a generator, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
