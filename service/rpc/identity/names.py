"""Names of callers: which texts can be one."""

# A name is a part of the key of stored responses, and PostgreSQL limits the size of a key.
MAX_NAME_BYTES = 1024


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a caller: printable, and not too long.

    A name with control characters could look like another one in a log, and begin lines of its own.
    """
    return bool(text) and text.isprintable() and len(text.encode()) <= MAX_NAME_BYTES
