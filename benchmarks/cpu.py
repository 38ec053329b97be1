"""CPU time and memory of processes on Linux."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process and its descendants, including those that have exited."""
    seconds = _own(pid) + _of_ended_children(pid)
    for child in _children(pid):
        # A child that exits meanwhile is counted among its parent's exited children the next time.
        with suppress(FileNotFoundError, ProcessLookupError):
            seconds += cpu_seconds(child)
    return seconds


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, (task / "children").read_text().split())


def _own(pid: int) -> float:
    """Return the CPU time of all threads of a process in nanosecond resolution; /proc counts in 1/100 s."""
    clock = ctypes.c_int()
    if error := _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return time.clock_gettime(clock.value)


def _of_ended_children(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # cutime and cstime are fields 16 and 17; the first two, up to the end of the process name, are cut off.
    return (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND
