"""Start and stop PostgreSQL's programs as child processes."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from service.devtools.child_process import end_with_parent, enter_user_namespace
from service.devtools.errors import EmbeddedPostgresError
from service.devtools.server_user import ServerUser

STOP_SECONDS = 30


class Launcher(NamedTuple):
    """Starts the programs of one server.

    Attributes:
        bin_dir: where the programs are.
        user: who runs them.
        log: the file that they write to.
        alive: a locked file that they inherit, so that the lock is free when none of them is left.
    """

    bin_dir: Path
    user: ServerUser
    log: IO[bytes]
    alive: IO[str]

    def start(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that gets SIGINT when the calling thread dies; raises EmbeddedPostgresError."""
        parent = os.getpid()

        def before_exec() -> None:
            # Only system calls: another thread may hold any lock at the moment of the fork.
            if self.user.new_namespace:
                enter_user_namespace()
            end_with_parent(parent)

        try:
            return subprocess.Popen(
                [self.bin_dir / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                cwd="/",
                env={"LC_ALL": "C"},  # without TZ, PGPORT and the like, which would change the cluster
                pass_fds=[self.alive.fileno()],
                start_new_session=True,  # Ctrl-C must reach only the parent, which then stops the server
                user=self.user.uid,  # changed before `before_exec` runs
                group=self.user.gid,
                extra_groups=None if self.user.uid is None else [],
                preexec_fn=before_exec,  # noqa: PLW1509 - makes only system calls
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(f"cannot run {self.bin_dir / program}: {error}") from error

    def failure(self, *, program: str) -> EmbeddedPostgresError:
        """Return the error for a program that failed, with the end of its log."""
        lines = Path(self.log.name).read_text(errors="replace").split("\n")
        end = " | ".join(line.strip() for line in lines if line.strip())[-1000:]
        return EmbeddedPostgresError(f"{program} failed; {self.log.name} ends with: {end}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a program with PostgreSQL's fast shutdown, which disconnects clients; if that takes too long, by force."""
    for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, None)):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
            return
