"""The operating system user that PostgreSQL runs as. PostgreSQL refuses to run as root."""

import os
import pwd
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.devtools.child_process import enter_user_namespace
from service.devtools.errors import EmbeddedPostgresError


class ServerUser(NamedTuple):
    """Who runs the server: this user, this user under another id in a user namespace, or another user."""

    new_namespace: bool = False
    uid: int | None = None
    gid: int | None = None


def choose_server_user(data_dir: Path, bin_dir: Path) -> ServerUser:
    """Return this user, or for root another user, who then owns the data directory.

    Raises:
        EmbeddedPostgresError: there is no user that root can run PostgreSQL as.
    """
    if os.geteuid() != 0:
        return ServerUser()
    uid, gid = data_dir.stat().st_uid, data_dir.stat().st_gid
    if uid == 0:
        if user_namespaces_work(bin_dir):
            return ServerUser(new_namespace=True)
        uid, gid = _unprivileged_account()
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
    return ServerUser(uid=uid, gid=gid)


def user_namespaces_work(bin_dir: Path) -> bool:
    """Return whether a program can be started in a new user namespace; containers often deny it."""
    try:
        subprocess.run(
            [bin_dir / "postgres", "--version"],
            check=True,
            capture_output=True,
            preexec_fn=enter_user_namespace,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _unprivileged_account() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)[2:4]
    raise EmbeddedPostgresError("root cannot run PostgreSQL, and neither of the users postgres and nobody exists")
