"""ImportUsers: a stream of rows, written a chunk at a time while the next one is read."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from itertools import takewhile
from uuid import UUID

import commerce.users.v1.user_service_pb2 as pb

from service.application.imports import Done, ImportRow, OnConflict, Outcome, import_rows
from service.application.ports.errors import Overloaded
from service.application.ports.passwords import Passwords
from service.application.ports.queries import UserQueries
from service.application.ports.unit_of_work import UnitOfWorkFactory
from service.domain.errors import AlreadyExists, DomainError, InvalidArgument, InvalidField
from service.rpc.call_context import ANONYMOUS
from service.rpc.messages.user_import import ON_CONFLICT, import_failure_message, parse_import_row
from service.rpc.messages.validation import violations_of
from service.rpc.methods import Context
from service.rpc.retry import retried, shielded_tasks
from service.runtime.deadline import Deadline

# Rows that one transaction writes.
CHUNK_ROWS = 1000
# Rows that a response names; it stays far below the limit of a message.
MAX_FAILURES = 1000
LAST_COMMITTED_ROW = "last-committed-row"
_OVERLOADED_PAUSE_SECONDS = 0.1

# A row, or what is wrong with it.
_Row = ImportRow | InvalidField


class UserImports:
    """Runs imports. A stream has no session of its own, so each chunk gets one here, and is run anew as a call is.

    Args:
        unit_of_work: opens units of work.
        queries: the read side of users.
        passwords: hashes passwords.
        clock: gives the time, in UTC.
        chunk_seconds: time that the statements of a chunk may take.
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

    async def run(self, requests: AsyncIterator[pb.ImportUsersRequest], context: Context) -> pb.ImportUsersResponse:
        """Import the rows of a stream."""
        first = await anext(aiter(requests), pb.ImportUsersRequest())
        if not first.HasField("config"):
            raise InvalidField.at("config", "must be set in the first message")
        on_conflict = ON_CONFLICT[first.config.on_conflict]
        progress = _Progress(context, first.config.first_row_number or 1, on_conflict)
        writing: asyncio.Task[list[Outcome]] | None = None
        try:
            # While a chunk is written the next one is read, and no more: the caller waits for the database.
            async for chunk in _chunks(requests):
                if writing:
                    task, writing = writing, None
                    progress.add(await self._shielded_tasks.result(task))
                writing = self._shielded_tasks.start(self._write(chunk, on_conflict))
        except InvalidArgument:
            # A message that is no row ends the call, but not what comes before it.
            if writing:
                progress.add(await self._shielded_tasks.result(writing))
            raise
        if writing:
            progress.add(await self._shielded_tasks.result(writing))
        return progress.response

    async def drain(self) -> None:
        """Wait until the chunks that are being written are, also those whose caller has gone."""
        await self._shielded_tasks.drain()

    async def _write(self, chunk: Sequence[_Row], on_conflict: OnConflict) -> list[Outcome]:
        rows = [row for row in chunk if isinstance(row, ImportRow)]
        hashes: dict[UUID, str] = {}

        async def attempt() -> list[Outcome]:
            # Before the unit of work, so that no connection waits for it.
            await self._hash_passwords(rows, hashes)
            deadline = Deadline(self._chunk_seconds)
            async with self._unit_of_work(actor=ANONYMOUS, request=None, time_left=deadline) as uow:
                outcomes = await import_rows(uow, rows, hashes, on_conflict, self._now())
                await uow.commit(b"")
            return outcomes

        # Rows are recognised by their ids and e-mails, so even a commit of which nothing was heard can be repeated.
        written = await retried(attempt, Deadline(math.inf), outcome_known_by_repeating=True) if rows else []
        # In the order of the chunk again, with the rows that are wrong, up to a conflict that ends the import.
        outcomes = iter(written)
        both = (row if isinstance(row, InvalidField) else next(outcomes, None) for row in chunk)
        return [outcome for outcome in takewhile(lambda outcome: outcome is not None, both) if outcome]

    async def _hash_passwords(self, rows: Sequence[ImportRow], hashes: dict[UUID, str]) -> None:
        """Hash the passwords of new users, one at a time: sign-ins, which share the threads, come before an import."""
        waiting = [row for row in rows if row.password and row.id not in hashes]
        known = await self._queries.known_emails([row.email for row in waiting]) if waiting else ()
        for row in waiting:
            while row.email not in known and row.id not in hashes:
                try:
                    hashes[row.id] = await self._passwords.hash(row.password)
                except Overloaded:
                    await asyncio.sleep(_OVERLOADED_PAUSE_SECONDS)


class _Progress:
    """Counts what became of the rows, and keeps the trailing metadata at it."""

    def __init__(self, context: Context, first_row: int, on_conflict: OnConflict) -> None:
        self._context = context
        self._conflict_ends = on_conflict is OnConflict.FAIL
        self.response = pb.ImportUsersResponse(last_committed_row=first_row - 1)
        self._tell()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count a chunk.

        Raises:
            AlreadyExists: the conflict that ends the import, with the numbers of rows in its metadata.
        """
        response = self.response
        for outcome in outcomes:
            number = response.last_committed_row + 1
            if self._conflict_ends and isinstance(outcome, AlreadyExists):
                self._tell()
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
        self._tell()

    def _tell(self) -> None:
        sent = (item for item in self._context.trailing_metadata() or () if item[0] != LAST_COMMITTED_ROW)
        self._context.set_trailing_metadata((*sent, (LAST_COMMITTED_ROW, str(self.response.last_committed_row))))


async def _chunks(requests: AsyncIterator[pb.ImportUsersRequest]) -> AsyncIterator[list[_Row]]:
    chunk: list[_Row] = []
    async for request in requests:
        if not request.HasField("row"):
            raise InvalidField.at("config", "must be set in the first message only")
        violations = violations_of(request.row)
        chunk.append(InvalidField(violations) if violations else parse_import_row(request.row))
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
