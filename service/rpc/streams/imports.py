"""ImportUsers: writes a stream of rows in chunks, and reads the next chunk while the previous one is written."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import commerce.users.v1.user_service_pb2 as pb
from commerce.users.v1.user_import_pb2 import UserImportRow

from service.application.imports import Done, ImportRow, OnConflict, RowOutcome, import_rows
from service.application.ports.passwords import Passwords
from service.application.ports.queries import UserQueries
from service.application.ports.unit_of_work import TimeLeft, UnitOfWorkFactory
from service.domain.errors import AlreadyExists, DomainError, InvalidArgument, InvalidField
from service.rpc.call_context import current_call
from service.rpc.messages.user_import import ON_CONFLICT, import_failure_message, parse_import_row
from service.rpc.messages.validation import violations_of
from service.rpc.methods import Context
from service.rpc.retry import retried, shielded_tasks
from service.runtime.deadline import Deadline, no_deadline
from service.runtime.loop_turns import LoopTurns

# The maximum number of rows that one transaction writes.
CHUNK_ROWS = 1000
# The maximum number of failed rows that a response lists, so that it stays far below the size limit of a message.
MAX_FAILURES = 1000
LAST_COMMITTED_ROW = "last-committed-row"
# How many chunks of all imports are looked up, and how many are written, at the same time. Others wait, so that imports
# leave connections to calls.
_MAX_WRITING = 2
# The part of the time in which rows are read while several imports run. Otherwise, that would keep the event loop busy.
_SHARE = 0.35

# A valid row, or the error of an invalid row.
_Row = ImportRow | InvalidField


class UserImports:
    """Runs imports. Each chunk has its own unit of work, and is retried like a unary call.

    TransactionInterceptor opens no unit of work for a stream.

    Args:
        unit_of_work: opens units of work.
        queries: the read side of users.
        passwords: hashes passwords.
        clock: returns the time, in UTC.
        chunk_seconds: seconds that the statements of a chunk may take.
    """

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        queries: UserQueries,
        passwords: Passwords,
        clock: Callable[[], datetime],
        *,
        chunk_seconds: float,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._queries = queries
        self._passwords = passwords
        self._now = clock
        self._chunk_seconds = chunk_seconds
        self._shielded_tasks = shielded_tasks()
        self._may_look_up, self._may_write = asyncio.Semaphore(_MAX_WRITING), asyncio.Semaphore(_MAX_WRITING)
        self._turns = LoopTurns(_SHARE)

    async def run(self, requests: AsyncIterator[pb.ImportUsersRequest], context: Context) -> pb.ImportUsersResponse:
        """Import the rows of a stream."""
        first = await anext(aiter(requests), pb.ImportUsersRequest())
        if not first.HasField("config"):
            raise InvalidField.at("config", "must be set in the first message")
        on_conflict = ON_CONFLICT[first.config.on_conflict]
        progress = _Progress(context, first.config.first_row_number or 1, on_conflict)
        writing: asyncio.Task[list[RowOutcome]] | None = None

        async def finish_chunk() -> None:
            nonlocal writing
            if writing:
                task, writing = writing, None
                progress.add(await task)

        try:
            # Reads at most one chunk ahead, so that gRPC's flow control slows the client down to the database's speed.
            async for chunk in self._chunks(requests):
                await finish_chunk()
                writing = self._shielded_tasks.start(self._write(chunk, on_conflict))
            await finish_chunk()
        except InvalidArgument:
            # An invalid message ends the call, but the rows before it are imported.
            await finish_chunk()
            raise
        finally:
            if writing:
                # The client has gone while the server was reading.
                self._shielded_tasks.abandon(writing)
        return progress.response

    async def drain(self, time_left: TimeLeft = no_deadline) -> int:
        """Wait until no chunk is written any longer, including those whose client has gone.

        Cancels those that are left when no time is left, which rolls them back, and returns their number.
        """
        return await self._shielded_tasks.drain(time_left)

    async def _chunks(self, requests: AsyncIterator[pb.ImportUsersRequest]) -> AsyncIterator[list[_Row]]:
        chunk: list[_Row] = []
        async for request in requests:
            if not request.HasField("row"):
                raise InvalidField.at("config", "must be set in the first message only")
            # One row of all imports in a turn of the event loop.
            await self._turns.take()
            chunk.append(_row(request.row))
            if len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    async def _write(self, chunk: Sequence[_Row], on_conflict: OnConflict) -> list[RowOutcome]:
        rows = [row for row in chunk if isinstance(row, ImportRow)]
        hashes: dict[UUID, str] = {}

        async def attempt() -> list[RowOutcome]:
            # Passwords are hashed before the unit of work begins, because it would hold a connection in the meantime.
            await self._hash_passwords(rows, hashes)
            await self._may_write.acquire()
            # If the client goes, all of the above ends; a transaction that has begun is committed all the same.
            return await self._shielded_tasks.run(self._import(rows, hashes, on_conflict))

        # Rows are recognised by their ids and e-mail addresses, so a commit with an unknown outcome can be repeated.
        written = await retried(attempt, no_deadline, outcome_known_by_repeating=True) if rows else []
        return _outcomes_in_order(chunk, written)

    async def _import(
        self, rows: Sequence[ImportRow], hashes: Mapping[UUID, str], on_conflict: OnConflict
    ) -> list[RowOutcome]:
        try:
            caller, deadline = current_call().caller, Deadline(self._chunk_seconds)
            async with self._unit_of_work(
                actor=caller.name, on_behalf_of=caller.end_user, request=None, time_left=deadline
            ) as uow:
                outcomes = await import_rows(uow, rows, hashes, on_conflict, self._now())
                await uow.commit(b"")
            return outcomes
        finally:
            self._may_write.release()

    async def _hash_passwords(self, rows: Sequence[ImportRow], hashes: dict[UUID, str]) -> None:
        """Hash the passwords of new users, one at a time and after those of sign-ins."""
        unhashed = [row for row in rows if row.password and row.id not in hashes]
        if not unhashed:
            return
        async with self._may_look_up:
            known = await self._queries.known_emails([row.email for row in unhashed])
        for row in unhashed:
            if row.email not in known:
                hashes[row.id] = await self._passwords.hash(row.password, background=True)


def _outcomes_in_order(chunk: Sequence[_Row], written: Iterable[RowOutcome]) -> list[RowOutcome]:
    """Return the outcomes of all rows of a chunk, in the order of the chunk.

    Args:
        chunk: the rows; the outcome of an invalid row is its error.
        written: the outcomes of the valid rows. If a conflict ended the import, some of them are missing at the end,
            and the result ends before the first valid row without an outcome.
    """
    remaining = iter(written)
    outcomes: list[RowOutcome] = []
    for row in chunk:
        outcome = row if isinstance(row, InvalidField) else next(remaining, None)
        if outcome is None:
            break
        outcomes.append(outcome)
    return outcomes


class _Progress:
    """Counts the outcomes of rows, and sets the trailing metadata to the last committed row."""

    def __init__(self, context: Context, first_row: int, on_conflict: OnConflict) -> None:
        self._context = context
        self._conflict_is_fatal = on_conflict is OnConflict.FAIL
        self.response = pb.ImportUsersResponse(last_committed_row=first_row - 1)
        self._set_trailing_metadata()

    def add(self, outcomes: Sequence[RowOutcome]) -> None:
        """Count the outcomes of a chunk.

        Raises:
            AlreadyExists: the conflict that ends the import. Its metadata has the numbers of the row and of the last
                committed row.
        """
        response = self.response
        for outcome in outcomes:
            number = response.last_committed_row + 1
            if self._conflict_is_fatal and isinstance(outcome, AlreadyExists):
                self._set_trailing_metadata()
                outcome.metadata |= {"row_number": str(number), "last_committed_row": str(number - 1)}
                raise outcome
            match outcome:
                case Done.CREATED:
                    response.created_count += 1
                case Done.UPDATED:
                    response.updated_count += 1
                case Done.SKIPPED:
                    response.skipped_count += 1
                case DomainError():
                    response.failure_count += 1
                    if len(response.failures) < MAX_FAILURES:
                        response.failures.append(import_failure_message(number, outcome))
            response.last_committed_row = number
        self._set_trailing_metadata()

    def _set_trailing_metadata(self) -> None:
        others = (item for item in self._context.trailing_metadata() or () if item[0] != LAST_COMMITTED_ROW)
        self._context.set_trailing_metadata((*others, (LAST_COMMITTED_ROW, str(self.response.last_committed_row))))


def _row(message: UserImportRow) -> _Row:
    if violations := violations_of(message):
        return InvalidField(violations)
    try:
        return parse_import_row(message)
    except InvalidField as error:
        return error
