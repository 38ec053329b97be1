"""Directories for the data of one process, which are deleted also if the process was killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the name of the directory is new, and only its owner can enter it
# Containers often have no more than 64 MiB.
_NEEDED_BYTES = 1 << 30


@contextmanager
def temporary_data_dir(prefix: str) -> Iterator[Path]:
    """Yield a new directory, and delete it with all its contents after the block.

    It is in memory (`/dev/shm`) if that has space, else in the temporary directory; in that of `TMPDIR` if it is set.

    The directory is locked while the process lives. A process that is killed leaves its directory behind, without the
    lock; then the next process that calls this with the same prefix deletes it.
    """
    parent = on_disk = Path(tempfile.gettempdir()).resolve()
    if "TMPDIR" not in os.environ and _has_space(_IN_MEMORY):
        parent = _IN_MEMORY
    for directory in (on_disk, _IN_MEMORY):
        _delete_abandoned(directory, prefix)
    # It gets its name when it is locked: under this one, no other process takes it for an abandoned one.
    unnamed = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    lock = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = unnamed.rename(unnamed.with_name(unnamed.name.removeprefix(".")))
        try:
            yield path
        finally:
            shutil.rmtree(path)
    finally:
        os.close(lock)


def _has_space(path: Path) -> bool:
    return os.access(path, os.W_OK) and shutil.disk_usage(path).free > _NEEDED_BYTES


def _delete_abandoned(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{prefix}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # of another user, deleted meanwhile, or not a directory
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)  # another process may delete it, too
        except BlockingIOError:
            continue  # in use
        finally:
            os.close(lock)
