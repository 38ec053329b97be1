"""System calls that a child process makes before it executes its program."""

import ctypes
import os
import signal
import sys

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def enter_user_namespace() -> None:
    """Enter a user namespace in which root has the user id 1000; root still owns its files."""
    if sys.platform != "linux" or _libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, content in (("setgroups", b"deny"), ("uid_map", b"1000 0 1"), ("gid_map", b"1000 0 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, content)
        os.close(descriptor)


def end_with_parent(parent: int) -> None:
    """Make the kernel send SIGINT when the thread that started this process dies (Linux only).

    Call this last, because a change of user would undo it.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGINT))
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the signal was requested
