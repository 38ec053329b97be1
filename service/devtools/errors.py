"""The error of the embedded PostgreSQL."""


class EmbeddedPostgresError(Exception):
    """The server could not be started. The message says why in one line."""
