"""Files with personal data: only the user who runs the command may read them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_OWNER_ONLY = 0o600


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Yield a new file that gets this name when the block ends without an error, else is removed; raises OSError.

    Its first name is unpredictable, so that no other user can put a link there, and no other file is overwritten.
    """
    # Readable only by its owner.
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def open_private(path: Path, *, append: bool) -> int:
    """Open a file to write, and return its descriptor; raises OSError.

    A regular file that exists also becomes readable only by its owner. A link is not followed.
    """
    # O_NONBLOCK: opening a pipe without a reader fails, instead of waiting for one.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    handle = os.open(path, flags, _OWNER_ONLY)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.fchmod(handle, _OWNER_ONLY)
            if not append:
                os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle
