"""Small file systems, which can be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = bytes(1 << 16)


class SmallDisk:
    """A file system in memory.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Use up all space that is left; again, what was freed since."""
        with self._ballast.open("ab", buffering=0) as file:
            for block in (_BLOCK, _BLOCK[:4096]):
                try:
                    while file.write(block) == len(block):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        """Free what `fill` has used."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk | None]:
    """Mount a file system of this size at a folder until the block ends; yields None if this is not allowed."""
    if os.geteuid() != 0 or not _mounted(folder, megabytes):
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", folder], check=True)


def _mounted(folder: Path, megabytes: int) -> bool:
    folder.mkdir(mode=0o700)
    options = f"size={megabytes}m,mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
