"""Gives each call its time, its transaction, its retries and, under a request id, its one effect.

A method that declares NO_SIDE_EFFECTS reads by itself, each question a statement of its own, on the replica if its
caller prefers that. Any other runs in a unit of work, which is committed before the caller gets its answer. Either is
run anew, as a whole, when the database asks for it.

A write is a task that the caller's cancellation does not reach (`service.runtime.shielded_tasks`), and so is each
statement of a read. They end by themselves: PostgreSQL limits each statement of a unit of work to the time that is
left, and any other to `db_statement_timeout`.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Coroutine
from typing import Any, cast
from uuid import UUID

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from service.application.ports.errors import AlreadyAnswered, DeadlineExceeded, NeedsTransaction, OutcomeUnknown
from service.application.ports.unit_of_work import RequestKey, UnitOfWorkFactory
from service.domain.errors import InvalidField
from service.read_preference import prefers_replica
from service.rpc.current import using
from service.rpc.interceptors.base import Call, Context, Interceptor, Method, Request
from service.rpc.metadata import sent_metadata
from service.rpc.retry import retried, shielded_tasks
from service.rpc.status import ResponseTooLarge
from service.runtime.deadline import Deadline

# Who calls, until callers are authenticated.
ANONYMOUS = "anonymous"
# Metadata of a read: where it is to be answered.
READ_PREFERENCE = "x-read-preference"
# The work's own limits end it in time; whoever still waits after this much more is told so.
_GRACE_SECONDS = 2.0


class TransactionInterceptor(Interceptor):
    """Runs each call of ours in its session.

    Args:
        unit_of_work: opens units of work.
        signing_key: secret for the digests of request bodies, which may hold passwords.
        default_deadline: seconds for a call whose caller set none, and at most for any.
        read_preference: `replica` or `primary`, for reads whose callers do not say.
        max_response_bytes: largest response to send.
    """

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        *,
        signing_key: bytes,
        default_deadline: float,
        read_preference: str,
        max_response_bytes: int,
    ) -> None:
        self._unit_of_work = unit_of_work
        # Copied for each body: to begin with the key takes longer than all the rest.
        self._digest = hmac.new(signing_key, digestmod=hashlib.sha256)
        self._default_deadline = default_deadline
        self._read_preference = read_preference
        self._max_response_bytes = max_response_bytes
        self._shielded_tasks = shielded_tasks()

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its session.

        A method with a stream on either side is left as it is: a stream cannot be run anew, and nothing of the database
        may be held while a slow reader makes it wait.
        """
        if not method.is_ours or method.request_streaming or method.response_streaming:
            return call
        run = self._read if _reads(method) else self._write

        async def in_session(request: Request, context: Context) -> bytes:
            # gRPC's stub promises a float; without a deadline it is None.
            sent = cast("float | None", context.time_remaining())
            if sent is not None and sent <= self._default_deadline:
                deadline = Deadline(sent, is_callers=True)
            else:
                deadline = Deadline(self._default_deadline)
            return await run(method, call, request, context, deadline)

        return in_session

    async def drain(self) -> None:
        """Wait until all work has ended, also that whose caller has gone; then the database may be left."""
        await self._shielded_tasks.drain()

    async def _read(self, _method: Method, call: Call, request: Request, context: Context, deadline: Deadline) -> bytes:
        async def attempt() -> bytes:
            return self._serialized(await call(request, context))

        token = prefers_replica.set(self._prefers_replica(context))
        try:
            reading = retried(attempt, deadline, outcome_known_by_repeating=True)
            patience = _patience(deadline)
            return await (reading if patience is None else _within(patience, reading))
        finally:
            prefers_replica.reset(token)

    def _prefers_replica(self, context: Context) -> bool:
        preference = sent_metadata(context).get(READ_PREFERENCE, self._read_preference)
        if preference not in {"primary", "replica"}:
            # Of a misspelt one nobody knows whether old answers would do.
            raise InvalidField.at(READ_PREFERENCE, "must be primary or replica")
        return preference == "replica"

    async def _write(self, method: Method, call: Call, request: Request, context: Context, deadline: Deadline) -> bytes:
        work = self._written(method, call, request, context, deadline)
        patience = _patience(deadline)
        if patience is None:
            return await self._shielded_tasks.run(work)
        return await self._shielded_tasks.result(
            self._shielded_tasks.start(work), timeout_seconds=patience, timeout_error=OutcomeUnknown
        )

    async def _written(
        self, method: Method, call: Call, request: Request, context: Context, deadline: Deadline
    ) -> bytes:
        dry_run = getattr(request, "validate_only", False)
        key = None if dry_run else self._request_key(method, request)

        async def run(*, at_once: bool) -> bytes:
            async with self._unit_of_work(actor=ANONYMOUS, request=key, time_left=deadline, at_once=at_once) as uow:
                with using(uow):
                    response = self._serialized(await call(request, context))
                if dry_run:
                    # All checks of the database too; leaving without a commit rolls back.
                    await uow.flush()
                else:
                    await uow.commit(response)
                return response

        at_once = not dry_run

        async def attempt() -> bytes:
            nonlocal at_once
            if at_once:
                try:
                    return await run(at_once=True)
                except NeedsTransaction:
                    at_once = False
            return await run(at_once=False)

        try:
            return await retried(attempt, deadline, outcome_known_by_repeating=key is not None)
        except AlreadyAnswered as answer:
            return answer.response

    def _serialized(self, response: Message | bytes | None) -> bytes:
        # Here, so that a response too large for the caller is known before the commit.
        data = response.SerializeToString() if isinstance(response, Message) else b""
        if len(data) > self._max_response_bytes:
            raise ResponseTooLarge
        return data

    def _request_key(self, method: Method, request: Message) -> RequestKey | None:
        request_id = getattr(request, "request_id", "")
        if not request_id:
            return None
        # Deterministic: the order of a map's entries is not part of the body. Keyed: a password cannot be guessed from
        # it.
        body = request.SerializeToString(deterministic=True)
        digest = self._digest.copy()
        digest.update(method.path.encode() + b"\0" + body)
        return RequestKey(ANONYMOUS, method.path, UUID(request_id), digest.digest())


def _patience(deadline: Deadline) -> float | None:
    """Return how many seconds to wait for work, None for ever: when a caller's deadline has passed, gRPC cancels."""
    return None if deadline.is_callers else max(0.0, deadline()) + _GRACE_SECONDS


async def _within(seconds: float, reading: Coroutine[Any, Any, bytes]) -> bytes:
    try:
        async with asyncio.timeout(seconds) as waiting:
            return await reading
    except TimeoutError as error:
        raise (DeadlineExceeded if waiting.expired() else error) from error


def _reads(method: Method) -> bool:
    if method.descriptor is None:
        return False
    level = method.descriptor.GetOptions().idempotency_level
    return bool(level == MethodOptions.NO_SIDE_EFFECTS)
