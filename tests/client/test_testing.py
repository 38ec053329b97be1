import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from commerce.client.testing import ServiceError, Services

from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

CONFTEST = 'pytest_plugins = ["commerce.client.testing"]\n'
ADA = 'email="ada@example.com", username="ada", password="correct horse"'
PROJECT = f"""
import asyncio
import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(3))
def test_alone(commerce_client, number):
    assert not list(commerce_client.users.list())
    commerce_client.users.create({ADA})


@pytest.mark.asyncio
async def test_async(commerce_async_client):
    user = await commerce_async_client.users.create({ADA})
    assert await commerce_async_client.users.get(username="ada") == user


def test_restart(commerce_service, commerce_client):
    commerce_client.users.create({ADA})
    commerce_service.stop()
    commerce_service.start()
    assert commerce_client.users.get(username="ada").email == "ada@example.com"


def test_two_services(commerce_service, commerce_services):
    with commerce_services.open() as other:
        assert other.address != commerce_service.address


def test_fails(commerce_client):
    assert not commerce_client.users.create({ADA})
"""
WAITS = """
import time
from pathlib import Path


def test_waits(commerce_service):
    Path("running").touch()
    time.sleep(600)
"""


class Project:
    """The tests of a caller, in a folder of their own, and what they leave behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Short, because it contains a socket.
        self.temporary = folder / "t"
        self.temporary.mkdir()
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "conftest.py").write_text(CONFTEST)

    def start(self, tests: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start a run of these tests."""
        (self.folder / "test_caller.py").write_text(tests)
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def left(self) -> list[str]:
        """Return the processes and the files that runs have left behind."""
        return [*self.processes(), *map(str, self.temporary.glob("*commerce*"))]

    def processes(self) -> Iterator[str]:
        """Yield the command lines of the processes that work in the temporary directory."""
        name = os.fsencode(self.temporary)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                seen = [(process / "environ").read_bytes(), (process / "cmdline").read_bytes()]
                seen.append(os.fsencode((process / "cwd").readlink()))
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue  # it has ended, or is of another user
            if any(name in text for text in seen):
                yield seen[1].replace(b"\0", b" ").decode()


@pytest.fixture
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="c") as folder:
        yield Project(Path(folder))


def test_each_test_has_a_service_with_new_data_and_its_log(project: Project) -> None:
    """Also in a worker of pytest-xdist."""
    output = project.start(PROJECT, "-n", "1").communicate()[0]
    assert re.search(r"= 1 failed, 6 passed in", output), output
    assert "- Captured commerce service log -" in output
    assert "/commerce.users.v1.UserService/CreateUser" in output
    assert not project.left()


async def test_nothing_is_left_when_the_tests_are_killed(project: Project) -> None:
    tests = project.start(WAITS)
    await eventually((project.folder / "running").exists, 60)
    assert len(project.left()) > 3
    tests.kill()
    tests.communicate()
    await eventually(lambda: not project.left())


async def test_nothing_is_left_after_ctrl_c(project: Project) -> None:
    tests = project.start(WAITS)
    await eventually((project.folder / "running").exists, 60)
    os.killpg(tests.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in tests.communicate()[0]
    assert tests.returncode == pytest.ExitCode.INTERRUPTED
    assert not project.left()


async def test_services_that_are_killed_are_reported_and_the_next_ones_delete_their_files(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(project.temporary))
    killed = Services()
    killed.open()
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(ServiceError, match="the service ended with status -9"):
        killed.open()
    with pytest.raises(ServiceError, match="the service ended with status -9"):
        killed.close()
    await eventually(lambda: not [*project.processes()])
    left = {*project.temporary.iterdir()}
    assert len(left) == 1
    with Services() as services, services.open():
        assert not left & {*project.temporary.iterdir()}
    assert not project.left()


def test_a_service_can_be_closed_twice_and_not_be_used_after(services: Services) -> None:
    with services.open() as closed:
        closed.close()
    for use in (closed.stop, closed.start):
        with pytest.raises(ServiceError, match="the service is closed"):
            use()
    with services.open():
        pass


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("COMMERCE_MAX_WATCHES", "COMMERCE_MAX_WATCHES is wrong"),
        ("COMMERCE_MAX_WATCHERS", "there is no setting of this name; is it COMMERCE_MAX_WATCHES?"),
    ],
)
def test_a_wrong_setting_is_named(name: str, problem: str) -> None:
    services = Services({name: "none"})
    with pytest.raises(ServiceError, match=re.escape(problem)):
        services.open()
    with pytest.raises(ServiceError):
        services.close()
    with pytest.raises(ServiceError, match="closed"):
        services.open()


def test_without_the_service_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("commerce.client.testing.services.distribution", missing)
    with pytest.raises(ServiceError, match=re.escape("pip install 'commerce-client[testing]'")):
        Services()
