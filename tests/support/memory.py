"""The memory of processes."""

import resource
from pathlib import Path


def resident_megabytes(pid: int | str = "self") -> float:
    """Return the resident memory of a process; without one, of this process, which includes the server's."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6
