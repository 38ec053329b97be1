"""An import in calls of a thousand rows, which the client can repeat. Both clients share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grpc import StatusCode

from commerce.client.enums import UserImportOnConflict
from commerce.client.errors import error_of
from commerce.client.failures import Failure, Outcome
from commerce.client.generated.methods import IMPORT_USERS
from commerce.client.messages import make_request
from commerce.client.streams import is_lost

if TYPE_CHECKING:
    from commerce.client.failures import CommerceError
    from commerce.client.generated import types
    from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportFailure, UserImportRow
    from commerce.users.v1.user_service_pb2 import ImportUsersRequest, ImportUsersResponse

    Row = UserImportRow | types.UserImportRowFields

# As many rows as the server writes in one transaction; it lists all failures of a call with no more than this.
ROWS_PER_CALL = 1000
_MAX_FAILURES = 1000
_TRAILER = "last-committed-row"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is.

    Attributes:
        created: number of new users.
        updated: number of users that were changed.
        skipped: number of rows that required no change.
        failed: number of rows that were not imported.
        last_row: number of the last row that is processed; go on with the one after it.
        failures: the rows that were not imported since the report before, with the reasons; in the result of the
            import, the first thousand.
    """

    created: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    last_row: int = 0
    failures: tuple[UserImportFailure, ...] = ()


def closed_error(x_request_id: str = "") -> CommerceError:
    """Return the error of a call of an import that ended because the client was closed."""
    failure = Failure(
        message="the client was closed while the import ran",
        code=StatusCode.CANCELLED,
        outcome=Outcome.UNKNOWN,
        method=IMPORT_USERS.path,
        x_request_id=x_request_id,
    )
    return error_of(failure)


class RowError(ValueError):
    """A row cannot be sent. `__cause__` says why; the rows before it may be imported.

    Attributes:
        row_number: its number.
        last_committed_row: the number of the last row that is imported.
    """

    def __init__(self, row_number: int, last_committed_row: int, why: object) -> None:
        super().__init__(f"row {row_number}: {why}; the rows up to {last_committed_row} are processed")
        self.row_number, self.last_committed_row = row_number, last_committed_row


class UserImport:
    """The state of one import.

    Args:
        on_conflict: what happens to a row whose e-mail address a user has already.
        resume_from: number of the first row to send; those before it are read and left out.
        report: called after each call.

    Attributes:
        progress: how far it is; `failures` has the first thousand.
    """

    def __init__(
        self,
        on_conflict: types.UserImportOnConflictValue,
        resume_from: int,
        report: Callable[[ImportProgress], object] | None,
    ) -> None:
        from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow

        if resume_from < 1:
            raise ValueError("the first row has the number 1")
        self._config: UserImportConfig = make_request(UserImportConfig, {"on_conflict": on_conflict})
        self._row_type = UserImportRow
        self._first, self._report = resume_from, report
        self._read = 0
        self._chunk: list[UserImportRow] = []
        self.progress = ImportProgress(last_row=resume_from - 1)

    def add(self, row: Row) -> bool:
        """Take a row; returns whether there are enough for a call.

        Raises:
            RowError: it is neither a message nor a dict with the fields of one.
        """
        self._read += 1
        if self._read < self._first:
            return False
        try:
            message = make_request(self._row_type, row) if isinstance(row, Mapping) else row
            if not isinstance(message, self._row_type):
                raise TypeError(f"it is a {type(row).__name__}, not a UserImportRow or a dict")
        except (TypeError, ValueError) as error:
            raise RowError(self._read, self.progress.last_row, error) from error
        self._chunk.append(message)
        return len(self._chunk) == ROWS_PER_CALL

    @property
    def has_rows(self) -> bool:
        """Whether there are rows to send."""
        return bool(self._chunk)

    def requests(self) -> Iterator[ImportUsersRequest]:
        """Yield the requests of a call."""
        from commerce.users.v1.user_service_pb2 import ImportUsersRequest

        self._config.first_row_number = self.progress.last_row + 1
        yield ImportUsersRequest(config=self._config)
        for row in self._chunk:
            yield ImportUsersRequest(row=row)

    def imported(self, response: ImportUsersResponse) -> None:
        """Note the response of a call."""
        before = self.progress
        new = tuple(response.failures)
        self.progress = ImportProgress(
            before.created + response.created_count,
            before.updated + response.updated_count,
            before.skipped + response.skipped_count,
            before.failed + response.failure_count,
            response.last_committed_row,
            (before.failures + new)[:_MAX_FAILURES],
        )
        self._chunk = []
        if self._report is not None:
            self._report(replace(self.progress, failures=new))

    def failed(self, error: CommerceError) -> CommerceError:
        """Return the error of a call with what is known of its rows."""
        begun = self.progress.last_row
        trailer = error.failure.trailers.get(_TRAILER)
        last = begun if trailer is None else max(begun, int(trailer))
        # A status of the service itself comes with the number of the last row.
        outcome = error.outcome if trailer is None else Outcome.NOT_WRITTEN
        if last >= self._first:
            outcome = Outcome.WRITTEN
        return error.with_failure(outcome=outcome, metadata={**error.metadata, "last_committed_row": str(last)})

    def may_repeat(self, error: CommerceError) -> bool:
        """Return whether the rows of a call that failed can be sent again.

        With FAIL, a user that the call has created would stop the repeated one.
        """
        if not is_lost(error):
            return False
        if int(self._config.on_conflict) != UserImportOnConflict.FAIL:
            return True
        return _TRAILER in error.failure.trailers and error.last_committed_row == self.progress.last_row
