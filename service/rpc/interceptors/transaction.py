"""Runs each call with its deadline, its unit of work, its retries and its idempotency.

A method that declares NO_SIDE_EFFECTS runs without a transaction: each of its statements has a snapshot of its own, and
goes to the replica if the caller prefers that. Any other method runs in a unit of work, which is committed before the
response is sent. A method that is listed for the fast path first runs in a unit of work that is one statement; if that
raises NeedsTransaction, the method runs again in the transactional one. On a retryable error of the database the whole
method is retried (`service.rpc.retry`).

A write runs in a task that the caller's cancellation does not reach (`service.runtime.shielded_tasks`), and so does
each statement of a read. They end by themselves: PostgreSQL limits each statement of a transactional unit of work to
the time that the call has left, and the executor cancels any other statement soon after that time.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from google.protobuf.message import Message

from service.application.ports.errors import AlreadyAnswered, CommitTimedOut, DeadlineExceeded, NeedsTransaction
from service.application.ports.unit_of_work import RequestKey, TimeLeft, UnitOfWorkFactory
from service.domain.errors import InvalidField
from service.observability.metrics.calls import Calls, MethodCalls
from service.rpc.call_context import current_call
from service.rpc.identity.caller import Caller
from service.rpc.interceptors.base import Interceptor
from service.rpc.messages.subjects import Subjects, subjects_of
from service.rpc.methods import Call, Context, Method, Request
from service.rpc.retry import retried, shielded_tasks
from service.rpc.status import ResponseTooLarge
from service.runtime.deadline import Deadline, no_deadline

# The metadata key by which a client chooses the database that answers a read.
READ_PREFERENCE = "x-read-preference"
# If a call's work has not ended this long after its deadline, the caller is answered without it.
_GRACE_SECONDS = 2.0


class TransactionInterceptor(Interceptor):
    """Runs each unary call of this service's own methods, and commits what it writes.

    Args:
        unit_of_work: opens transactional units of work.
        fast_path: for the path of each method that tries it first, what opens a unit of work of one statement.
        signing_keys: keys for the digests of request bodies, which may contain passwords: the first for new digests,
            the others for those that are stored already.
        default_deadline: seconds for a call without a deadline, and the maximum for any call.
        read_preference: `replica` or `primary`, for reads without `x-read-preference`.
        max_response_bytes: size of the largest response to send.
        calls: the counts of calls, for metrics; None counts none.
    """

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        *,
        fast_path: Mapping[str, UnitOfWorkFactory],
        signing_keys: Sequence[bytes],
        default_deadline: float,
        read_preference: str,
        max_response_bytes: int,
        calls: Calls | None = None,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._fast_path = fast_path
        # Copied for each body, because hashing the key takes longer than hashing a body.
        self._digest = hmac.new(signing_keys[0], digestmod=hashlib.sha256)
        self._accepted_keys = signing_keys[1:]
        self._default_deadline = default_deadline
        self._read_preference = read_preference
        self._max_response_bytes = max_response_bytes
        self._calls = calls
        self._shielded_tasks = shielded_tasks()
        # For the path of each method, what its responses are about.
        self._subjects: dict[str, Subjects] = {}

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its unit of work.

        A method that streams is returned unchanged: a stream cannot be retried as a whole, and a slow reader must not
        hold a connection to the database.
        """
        if not method.is_ours or method.request_streaming or method.response_streaming:
            return call
        if method.descriptor:
            self._subjects[method.path] = subjects_of(method.descriptor)
        run = self._read if method.reads else self._write

        async def run_with_deadline(request: Request, context: Context) -> bytes:
            # gRPC's stub promises a float, but without a deadline this is None.
            seconds_left = cast("float | None", context.time_remaining())
            if seconds_left is not None and seconds_left <= self._default_deadline:
                deadline = Deadline(seconds_left, is_callers=True)
            else:
                deadline = Deadline(self._default_deadline)
            # What the call waits for in a queue is dropped when its deadline has passed or its client has gone.
            current_call().time_left = deadline
            try:
                return await run(method, call, request, context, deadline)
            except asyncio.CancelledError:
                deadline.end()
                raise

        return run_with_deadline

    async def drain(self, time_left: TimeLeft = no_deadline) -> int:
        """Wait until all writes have ended, including those of callers that have gone; then the database may close.

        Cancels those that are left when no time is left, which rolls them back, and returns their number.
        """
        return await self._shielded_tasks.drain(time_left)

    async def _read(self, method: Method, call: Call, request: Request, context: Context, deadline: Deadline) -> bytes:
        counts = self._calls.of(method.path) if self._calls is not None else None

        async def attempt() -> bytes:
            if counts is not None:
                counts.attempts += 1
            return self._serialized(await call(request, context))

        call_context = current_call()
        call_context.prefers_replica = self._prefers_replica(call_context.metadata)
        reading = retried(attempt, deadline, outcome_known_by_repeating=True)
        timeout = _timeout(deadline)
        return await (reading if timeout is None else _within(timeout, reading))

    def _prefers_replica(self, metadata: Mapping[str, str | bytes]) -> bool:
        preference = metadata.get(READ_PREFERENCE, self._read_preference)
        if preference not in {"primary", "replica"}:
            # A misspelled preference leaves it unclear whether stale reads are acceptable.
            raise InvalidField.at(READ_PREFERENCE, "must be primary or replica")
        return preference == "replica"

    async def _write(self, method: Method, call: Call, request: Request, context: Context, deadline: Deadline) -> bytes:
        work = self._committed(method, call, request, context, deadline)
        timeout = _timeout(deadline)
        if timeout is None:
            return await self._shielded_tasks.run(work)
        return await self._shielded_tasks.result(
            self._shielded_tasks.start(work), timeout_seconds=timeout, timeout_error=CommitTimedOut
        )

    async def _committed(
        self, method: Method, call: Call, request: Request, context: Context, deadline: Deadline
    ) -> bytes:
        """Run a method until its unit of work is committed, and return the response."""
        dry_run = getattr(request, "validate_only", False)
        call_context = current_call()
        caller = call_context.caller
        key = None if dry_run else self._request_key(caller, method, request)
        fast_path = None if dry_run else self._fast_path.get(method.path)
        subjects = self._subjects[method.path]
        counts = self._calls.of(method.path) if self._calls is not None else None

        async def run(open_unit_of_work: UnitOfWorkFactory) -> bytes:
            async with open_unit_of_work(
                actor=caller.name, on_behalf_of=caller.end_user, request=key, time_left=deadline
            ) as uow:
                call_context.unit_of_work = uow
                try:
                    answer = await call(request, context)
                finally:
                    call_context.unit_of_work = None
                response = self._serialized(answer)
                if dry_run:
                    # The constraints of the database are checked too; leaving without a commit rolls back.
                    await uow.flush()
                else:
                    await uow.commit(response, subjects(request, answer) if key else ())
                return response

        attempts = _Attempts(run, fast_path, self._unit_of_work, None if dry_run else counts)
        call_context.working = True
        try:
            return await retried(attempts.next, deadline, outcome_known_by_repeating=key is not None)
        except AlreadyAnswered as answer:
            if counts is not None:
                counts.replays += 1
            return answer.response
        finally:
            call_context.working = False
            if call_context.after_work:
                call_context.after_work()

    def _serialized(self, response: Message | bytes | None) -> bytes:
        # Before the commit, so that a call whose response is too large to send writes nothing.
        data = response.SerializeToString() if isinstance(response, Message) else b""
        if len(data) > self._max_response_bytes:
            raise ResponseTooLarge
        return data

    def _request_key(self, caller: Caller, method: Method, request: Message) -> RequestKey | None:
        request_id = getattr(request, "request_id", "")
        if not request_id:
            return None
        # Deterministic, because the order of a map's entries is not significant. With a key, because without one a
        # password could be guessed from the digest (ADR 3).
        body = method.path.encode() + b"\0" + request.SerializeToString(deterministic=True)
        digest = self._digest.copy()
        digest.update(body)
        accepted = tuple(hmac.digest(key, body, hashlib.sha256) for key in self._accepted_keys)
        return RequestKey(caller.scope, method.path, UUID(request_id), digest.digest(), accepted)


class _Attempts:
    """The attempts at the work of one call: on the fast path, if it has one, then in a transaction.

    Args:
        run: runs the work in a unit of work.
        fast_path: what opens one of one statement; None if the call has none.
        transaction: what opens a transactional one.
        counts: the counts of the method, for metrics.
    """

    def __init__(
        self,
        run: Callable[[UnitOfWorkFactory], Awaitable[bytes]],
        fast_path: UnitOfWorkFactory | None,
        transaction: UnitOfWorkFactory,
        counts: MethodCalls | None,
    ) -> None:
        self._run = run
        self._fast_path = fast_path
        self._transaction = transaction
        self._counts = counts

    async def next(self) -> bytes:
        """Do the work, and return the response."""
        counts = self._counts
        if counts is not None:
            counts.attempts += 1
        if self._fast_path:
            try:
                response = await self._run(self._fast_path)
            except NeedsTransaction:
                # Retries do not try the fast path again: what was in the way may still be there.
                self._fast_path = None
            else:
                if counts is not None:
                    counts.fast_path += 1
                return response
        response = await self._run(self._transaction)
        if counts is not None:
            counts.transactions += 1
        return response


def _timeout(deadline: Deadline) -> float | None:
    """Return how many seconds to wait for work; None for a caller's own deadline, at which gRPC cancels the call."""
    return None if deadline.is_callers else max(0.0, deadline()) + _GRACE_SECONDS


async def _within(seconds: float, reading: Coroutine[Any, Any, bytes]) -> bytes:
    try:
        async with asyncio.timeout(seconds) as waiting:
            return await reading
    except TimeoutError as error:
        raise (DeadlineExceeded if waiting.expired() else error) from error
