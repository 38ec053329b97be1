"""The memory of processes."""

import resource
from pathlib import Path


def resident_megabytes(pid: int | str = "self") -> float:
    """Return the resident memory of a process; without one, of this process, which includes the server's."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def forget_peak(pid: int) -> None:
    """Forget the largest resident memory that a process has had so far."""
    # proc_pid_clear_refs(5).
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak_mebibytes(pid: int) -> float:
    """Return the largest resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
