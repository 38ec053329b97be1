"""A real PgBouncer in front of a database."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from service.db.connections.engine import async_url
from tests.support.waiting import eventually

# Debian installs it in /usr/sbin, which only root has in its PATH.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
POOL_SIZE = 2


@asynccontextmanager
async def pgbouncer_to(url: str, **settings: object) -> AsyncIterator[str]:
    """Run PgBouncer in transaction mode with few connections to a database; yields its URL."""
    to = async_url(url)
    host = str(to.host or to.query["host"])
    target = {"host": host, "port": to.port or to.query.get("port", 5432), "user": to.username, "password": to.password}
    with TemporaryDirectory(prefix="pgbouncer-") as name:
        folder = Path(name)
        options = {
            "listen_addr": "",
            "listen_port": 6432,
            "unix_socket_dir": folder,
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": POOL_SIZE,
            **settings,
        }
        given = " ".join(f"{key}='{value}'" for key, value in target.items() if value is not None)
        lines = ["[databases]", f"through = dbname='{to.database}' {given}", "[pgbouncer]"]
        lines += [f"{key} = {value}" for key, value in options.items()]
        configuration = folder / "pgbouncer.ini"
        configuration.write_text("\n".join(lines))
        with (folder / "log").open("wb") as log, started(configuration, host, log.fileno()) as process:
            try:
                await eventually(lambda: (folder / ".s.PGSQL.6432").exists() or process.poll() is not None)
                assert process.poll() is None, (folder / "log").read_text()
                yield f"postgresql://commerce@/through?host={folder}&port=6432"
            finally:
                process.kill()


def started(configuration: Path, host: str, log: int) -> subprocess.Popen[bytes]:
    """Start PgBouncer; for root, as the owner of PostgreSQL's socket, because PgBouncer refuses to run as root."""
    assert PROGRAM
    command, user = [PROGRAM, str(configuration)], None
    if os.geteuid() == 0:
        owner = Path(host).stat().st_uid if host.startswith("/") else 0
        if owner:
            user = owner
            os.chown(configuration.parent, owner, -1)
        else:
            # In a new user namespace, in which root has another user id.
            command = ["unshare", "--user", "--map-user=1000", *command]
    return subprocess.Popen(command, user=user, stdout=log, stderr=log)
