"""Unexpected errors of this port, which clients know by an id and the log by their cause."""

from uuid import uuid4

import structlog

from service.http.failures import CallFailed
from service.observability.logs import where_raised
from service.rpc.status import internal_error

log = structlog.get_logger()


def internal_failure(error: Exception, path: str) -> CallFailed:
    """Log an unexpected error, and return the failure for the client."""
    error_id = str(uuid4())
    log.error("internal error", method=path, error_id=error_id, **where_raised(error))
    return CallFailed(internal_error(error_id))
