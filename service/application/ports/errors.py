"""Errors that the ports raise, beside those of the domain.

StoreError
├── Contention              another transaction was in the way; nothing was written; retryable
├── DatabaseUnavailable     no connection, or it broke before COMMIT; nothing was written; retryable
├── OutcomeUnknown          the connection broke during COMMIT; the write may have happened
└── DeadlineExceeded        the call's time ran out; nothing was written
Overloaded                  the queue for this kind of work is full; nothing was done
ExportStalled               the client of an export stopped reading
NeedsTransaction            not a failure: the fast path cannot do this unit of work
AlreadyAnswered             not a failure: the request id has a stored response
"""


class StoreError(Exception):
    """The store could not do its work. Its message holds nothing of the statement or its values."""


class Contention(StoreError):
    """A deadlock, a serialization failure or a lock not had in time; the transaction was rolled back."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached, or broke the connection before COMMIT."""


class OutcomeUnknown(StoreError):
    """The connection broke during COMMIT: the transaction may or may not have happened."""


class DeadlineExceeded(StoreError):
    """The call's time ran out, and its transaction was rolled back."""


class Overloaded(Exception):
    """Too much work of one kind is waiting already; nothing was done."""


class ExportStalled(Exception):
    """Nothing of an export was read for too long."""


class NeedsTransaction(Exception):
    """The fast path cannot do this unit of work; nothing was written. Run the call again in a transaction."""


class AlreadyAnswered(Exception):
    """This request was answered before; `response` holds the same bytes."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response
