"""Classify a failed statement: whether it may have been executed, and whether to discard its connection."""

from dataclasses import dataclass
from enum import Enum, auto

import asyncpg

from service.db.errors import READ_ONLY, sqlstate_of


class Outcome(Enum):
    """Whether a failed statement may have been executed."""

    ROLLED_BACK = auto()
    """PostgreSQL reported the error, so it has rolled the statement back."""
    UNAVAILABLE = auto()
    """The connection broke after PostgreSQL had reported that it was ending the connection and rolling back."""
    UNKNOWN = auto()
    """The connection broke without such a report: the statement may have been executed."""
    UNEXPECTED = auto()
    """Neither PostgreSQL nor the connection failed: a cancellation, or an error of this program."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The classification of a failure.

    Attributes:
        outcome: whether the statement may have been executed.
        discard_connection: whether the connection must not be used again.
    """

    outcome: Outcome
    discard_connection: bool


def classify_failure(error: BaseException, *, connection_is_closed: bool) -> Failure:
    """Classify an error that asyncpg raised while it ran one statement in its own transaction.

    Args:
        error: the error.
        connection_is_closed: whether the connection was closed right after the error.
    """
    match error:
        case asyncpg.InterfaceError() if not connection_is_closed:
            # asyncpg refused to run the statement, for example because of a value of the wrong type.
            return Failure(Outcome.UNEXPECTED, discard_connection=True)
        case (
            asyncpg.PostgresConnectionError()
            | asyncpg.InterfaceError()
            # Raised when PostgreSQL reported, while the connection was idle, that it was ending the connection.
            | asyncpg.InternalClientError()
            # Includes TimeoutError: asyncpg's own limit has passed without an answer.
            | OSError()
        ):
            outcome = Outcome.UNAVAILABLE if _postgresql_ended_the_connection(error) else Outcome.UNKNOWN
            return Failure(outcome, discard_connection=True)
        case asyncpg.PostgresError():
            # A connection to a replica would refuse every later write, too.
            return Failure(Outcome.ROLLED_BACK, discard_connection=sqlstate_of(error) == READ_ONLY)
        case _:
            # The connection's state is unknown, so it is discarded.
            return Failure(Outcome.UNEXPECTED, discard_connection=True)


def _postgresql_ended_the_connection(error: BaseException) -> bool:
    """Return whether PostgreSQL reported that it was ending the connection before the connection broke.

    Only a report by PostgreSQL itself counts, which contains the name of a function in PostgreSQL's source code. A
    report by PgBouncer does not tell whether the statement was executed.
    """
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and bool(cause.server_source_function)
