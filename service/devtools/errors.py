"""The error of the embedded PostgreSQL."""

from service.runtime.errors import OperatorError


class EmbeddedPostgresError(OperatorError):
    """The server could not be started."""
