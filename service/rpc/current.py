"""The unit of work of the call that is being answered: the one context variable of the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.application.ports.unit_of_work import UnitOfWork

_current: ContextVar[UnitOfWork] = ContextVar("unit_of_work")


def current_unit_of_work() -> UnitOfWork:
    """Return the call's unit of work.

    Raises:
        LookupError: there is none, because TransactionInterceptor is not in the chain or the method declares
        NO_SIDE_EFFECTS.
    """
    try:
        return _current.get()
    except LookupError:
        message = "no unit of work: TransactionInterceptor opens one for methods that are not NO_SIDE_EFFECTS"
        raise LookupError(message) from None


@contextmanager
def using(uow: UnitOfWork) -> Iterator[None]:
    """Make this the call's unit of work inside the block."""
    token = _current.set(uow)
    try:
        yield
    finally:
        _current.reset(token)
