"""A PostgreSQL of its own, which a test kills and starts again."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from service.devtools.embedded_postgres import embedded_postgres
from tests.support.databases import driver_connection, migrated_template
from tests.support.waiting import eventually


class OwnPostgres:
    """A PostgreSQL whose processes a test may kill.

    Attributes:
        folder: where it is.
        url: of its database `postgres`, the same after every start.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], bin_dir: Path | None = None) -> None:
        self.folder = folder
        self._settings = settings
        self._bin_dir = bin_dir
        self._running = ExitStack()
        self.url = ""

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        running = embedded_postgres(self.folder, bin_dir=self._bin_dir, settings=self._settings)
        self.url = self._running.enter_context(running)

    def stop(self) -> None:
        """Stop it in the regular way, or clean up after it was killed."""
        self._running.close()

    def kill(self, *, backends: bool = True) -> None:
        """Kill the postmaster, and if `backends` all other processes together with it, as a power failure would."""
        pids = [self.postmaster, *(self.children() if backends else [])]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop()

    async def crash(self, backend: int) -> None:
        """Kill a backend; PostgreSQL then ends all others and recovers, because the shared memory may be damaged."""
        children = set(self.children())
        os.kill(backend, signal.SIGKILL)
        await eventually(lambda: not children & set(self.children()))

    def start_again(self) -> None:
        """Start it after it has ended."""
        self.stop()
        self.start()

    @property
    def running(self) -> bool:
        """Whether its postmaster runs."""
        try:
            status = Path(f"/proc/{self.postmaster}/stat").read_text()
        except (FileNotFoundError, IndexError):
            return False
        # One that has ended is a zombie until `stop`.
        return status.rpartition(")")[2].split()[0] != "Z"

    @property
    def postmaster(self) -> int:
        """The process id of the postmaster."""
        return int((self.folder / "pgdata" / "postmaster.pid").read_text().split()[0])

    def children(self) -> list[int]:
        """Return the process ids of all other processes."""
        return [*map(int, Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split())]

    async def migrated_database(self) -> str:
        """Return the URL of a database that has all migrations."""
        return await migrated_template(self.url)

    async def until_accepting(self, database_url: str, seconds: float = 60) -> float:
        """Wait until a connection can be opened, and return the time of the monotonic clock."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                async with driver_connection(database_url) as connection:
                    await connection.execute("SELECT 1")
            except Exception:  # asyncpg raises errors of many kinds for a server that is not there
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)  # noqa: ASYNC251 - nothing else runs meanwhile
            else:
                return time.monotonic()


@contextmanager
def own_postgres(
    folder: Path, settings: Mapping[str, str] | None = None, bin_dir: Path | None = None
) -> Iterator[OwnPostgres]:
    """Run a PostgreSQL, by default the embedded one, in a folder until the block ends. Call it from the main thread."""
    postgres = OwnPostgres(folder, settings or {}, bin_dir)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()
