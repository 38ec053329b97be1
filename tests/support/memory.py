"""The memory of this process."""

import resource
from pathlib import Path


def resident_megabytes() -> float:
    """Return the resident memory of this process, which includes the server's."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6
