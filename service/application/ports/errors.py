"""Errors that the ports raise, in addition to those of the domain.

StoreError
├── Contention              conflict with another transaction; nothing was written; retryable
├── DatabaseUnavailable     no connection, or connection lost before COMMIT; nothing was written; retryable
├── OutcomeUnknown          connection lost during COMMIT; the write may have happened
│   └── CommitTimedOut      COMMIT was still running when the time of the call ran out; the write may have happened
└── DeadlineExceeded        the deadline of the call has passed; nothing was written
Overloaded                  the queue for this operation is full; nothing was written
ExportStalled               the client of an export reads too slowly, or not at all
NeedsTransaction            not a failure: the unit of work needs a transaction, so the fast path cannot do it
AlreadyAnswered             not a failure: the request id has a stored response
"""

from typing import Literal


class StoreError(Exception):
    """The database failed. The message does not contain the statement or its values."""


class Contention(StoreError):
    """A deadlock, a serialization failure or a lock timeout; the transaction was rolled back."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached, or the connection was lost before COMMIT."""


class OutcomeUnknown(StoreError):
    """The connection was lost during COMMIT: the write may have happened."""


class CommitTimedOut(OutcomeUnknown):
    """The work was still running after the deadline of the call and a grace period: the write may still happen."""


class DeadlineExceeded(StoreError):
    """The deadline of the call has passed, and its transaction was rolled back."""


# What is full when a call is refused for load.
Full = Literal[
    "calls",
    "admission",
    "connections",
    "exports",
    "passwords",
    "request_bytes",
    "unread_responses",
    "watches",
]


class Overloaded(Exception):
    """The queue for this operation is full; nothing was written.

    Attributes:
        full: what is full: all calls of the process, the queue of a method, or what else is limited.
    """

    full: Full = "connections"

    def __init__(self, full: Full = "connections") -> None:
        super().__init__()
        self.full = full


class ExportStalled(Exception):
    """The client of an export has read nothing for too long, or too little in a longer time."""


class NeedsTransaction(Exception):
    """The fast path cannot do this unit of work; nothing was written. Run the call again in a transaction."""


class AlreadyAnswered(Exception):
    """The request was answered before; `response` contains the bytes of that response."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response
