"""Which version of a file is on the disk, to notice that it was replaced."""

from pathlib import Path


def file_version(path: Path) -> tuple[int, int, int] | None:
    """Return what differs after a file was written or replaced; None if there is no such file, or it is out of reach.

    Follows symbolic links, so that it also notices when Kubernetes replaces the link to a mounted secret.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
