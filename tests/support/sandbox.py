"""Run a program that can write no file and has no capability: `python -m tests.support.sandbox PROGRAM ARGUMENTS…`.

It is for a program what a container with a read-only root file system and without capabilities is: Landlock
(https://docs.kernel.org/userspace-api/landlock.html) denies it to write, create and delete files anywhere except below
the directories in SANDBOX_WRITABLE, and the devices in /dev. It can do what it could do before with files and sockets
that are open already, such as its standard output.
"""

import ctypes
import os
import sys
from pathlib import Path

WRITABLE = "SANDBOX_WRITABLE"

_libc = ctypes.CDLL(None, use_errno=True)
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_ABI_VERSION, _PATH_BENEATH = 1, 1
# In <linux/landlock.h>: write a file; delete directories and files; create files of each kind.
_WRITE_FILE = 1 << 1
_RIGHTS = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
# Since ABI 3: move files to other directories, and truncate them.
_RIGHTS_OF_ABI_3 = _RIGHTS | 1 << 13 | 1 << 14
_ABI_3 = 3
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("directory", ctypes.c_int32))


def is_possible() -> bool:
    """Return whether the kernel has Landlock."""
    return sys.platform == "linux" and _abi() > 0


def enter() -> None:
    """Confine this process, and all that it starts."""
    rights = _RIGHTS_OF_ABI_3 if _abi() >= _ABI_3 else _RIGHTS
    handled = ctypes.c_uint64(rights)
    ruleset = _call("create", _LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    writable = {path: rights for path in os.environ.get(WRITABLE, "").split(os.pathsep) if path}
    for path, allowed in {"/dev": _WRITE_FILE, **writable}.items():
        directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathBeneath(allowed, directory)
        _call("add a rule", _LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    _drop_capabilities()
    _call("enter", _LANDLOCK_RESTRICT_SELF, ruleset, 0)


def _drop_capabilities() -> None:
    # A program that root executes gets the capabilities of the bounding set, and no others.
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if os.geteuid() == 0:
        for capability in range(last + 1):
            if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "cannot drop a capability")
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot set no_new_privs")


def _abi() -> int:
    return int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _ABI_VERSION))


def _call(action: str, number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"cannot {action}: Landlock")
    return result


if __name__ == "__main__":
    enter()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the program that the arguments name
