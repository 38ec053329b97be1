"""Classify the failure of a statement: what became of the statement, and what to do with its connection."""

from dataclasses import dataclass
from enum import Enum, auto

import asyncpg

from service.db.errors import READ_ONLY, sqlstate_of


class Outcome(Enum):
    """What became of a statement that failed."""

    ROLLED_BACK = auto()
    """PostgreSQL reported the error, so it has rolled the statement back."""
    UNAVAILABLE = auto()
    """The connection broke, after PostgreSQL had reported that it ends the connection and rolls back."""
    UNKNOWN = auto()
    """The connection broke without such a report: the statement may have been executed."""
    UNEXPECTED = auto()
    """Neither PostgreSQL nor the connection failed: a cancellation, or an error of this program."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, classified.

    Attributes:
        outcome: what became of the statement.
        discard_connection: whether the connection must not be used again.
    """

    outcome: Outcome
    discard_connection: bool


def classify_failure(error: BaseException, *, connection_is_closed: bool) -> Failure:
    """Return the classification of what asyncpg raised while it ran one statement in a transaction of its own.

    Args:
        error: what was raised.
        connection_is_closed: the connection's state right after that.
    """
    match error:
        case asyncpg.InterfaceError() if not connection_is_closed:
            # asyncpg refused to run the statement, such as for a value of the wrong type.
            return Failure(Outcome.UNEXPECTED, discard_connection=True)
        case (
            asyncpg.PostgresConnectionError()
            | asyncpg.InterfaceError()
            # Raised when PostgreSQL reported, while the connection was idle, that it ends the connection.
            | asyncpg.InternalClientError()
            # Also a TimeoutError: asyncpg's own limit has passed without an answer.
            | OSError()
        ):
            outcome = Outcome.UNAVAILABLE if _postgresql_ended_the_connection(error) else Outcome.UNKNOWN
            return Failure(outcome, discard_connection=True)
        case asyncpg.PostgresError():
            # A connection that leads to a replica would refuse every later write, too.
            return Failure(Outcome.ROLLED_BACK, discard_connection=sqlstate_of(error) == READ_ONLY)
        case _:
            # The connection's state is unknown, so it is discarded.
            return Failure(Outcome.UNEXPECTED, discard_connection=True)


def _postgresql_ended_the_connection(error: BaseException) -> bool:
    """Return whether PostgreSQL reported that it ends the connection before the connection broke.

    Only PostgreSQL's own report counts, which names a function of its source. A report of PgBouncer does not tell what
    became of the statement.
    """
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and bool(cause.server_source_function)
