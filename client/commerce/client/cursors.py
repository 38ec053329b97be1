"""Where the cursors of watches are stored, so that a watch goes on after a restart of its program."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class CursorStore(Protocol):
    """Stores the cursor of one watch. Both methods may raise any error, which ends the watch."""

    def load(self) -> str | None:
        """Return the stored cursor; None before the first."""

    def save(self, cursor: str) -> None:
        """Store a cursor in place of the one before."""


class AsyncCursorStore(Protocol):
    """Stores the cursor of one watch of an `AsyncClient`, in coroutines."""

    async def load(self) -> str | None:
        """Return the stored cursor; None before the first."""

    async def save(self, cursor: str) -> None:
        """Store a cursor in place of the one before."""


class MemoryCursorStore:
    """Stores a cursor for as long as the process runs: for several watches, one after the other.

    Args:
        cursor: to begin with.

    Attributes:
        cursor: the stored cursor.
    """

    def __init__(self, cursor: str | None = None) -> None:
        self.cursor = cursor

    def load(self) -> str | None:
        """Return the stored cursor."""
        return self.cursor

    def save(self, cursor: str) -> None:
        """Store a cursor."""
        self.cursor = cursor


class FileCursorStore:
    """Stores a cursor in a file, which is replaced as a whole and flushed to the disk each time.

    A crash at any moment leaves the old cursor or the new one. The file is for one watch of one process at a time. An
    `AsyncClient` writes it in a thread.

    Args:
        path: of the file; its directory must exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> str | None:
        """Return the stored cursor, None if there is no file; raises OSError."""
        try:
            return self._path.read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None

    def save(self, cursor: str) -> None:
        """Store a cursor; raises OSError."""
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{cursor}\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        _flush_directory(self._path.parent)


def _flush_directory(path: Path) -> None:
    """Make a rename in a directory durable; Windows cannot open directories, and needs no flush."""
    if os.name == "posix":
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class CallableCursorStore:
    """Stores a cursor with two functions, for example in the program's own database.

    Args:
        load: returns the stored cursor; None before the first.
        save: stores a cursor.
    """

    def __init__(self, load: Callable[[], str | None], save: Callable[[str], object]) -> None:
        self._load, self._save = load, save

    def load(self) -> str | None:
        """Return the stored cursor."""
        return self._load()

    def save(self, cursor: str) -> None:
        """Store a cursor."""
        self._save(cursor)


class AsyncCallableCursorStore:
    """Stores a cursor with two coroutine functions, for an `AsyncClient`.

    Args:
        load: returns the stored cursor; None before the first.
        save: stores a cursor.
    """

    def __init__(self, load: Callable[[], Awaitable[str | None]], save: Callable[[str], Awaitable[object]]) -> None:
        self._load, self._save = load, save

    async def load(self) -> str | None:
        """Return the stored cursor."""
        return await self._load()

    async def save(self, cursor: str) -> None:
        """Store a cursor."""
        await self._save(cursor)
