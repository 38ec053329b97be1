import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.rpc.identity import policy_file
from service.rpc.identity.policy_file import PolicyFile
from service.rpc.identity.policy_parsing import PolicyError
from tests.support.logs import Log, logged
from tests.support.waiting import eventually

READS = '[roles]\na = ["users.read"]\n[identities]\n"key:a" = ["a"]\n'
WRITES = READS.replace("users.read", "users.write")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(READS)
    return file


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as log:
        yield log


def replace(file: Path, content: str) -> None:
    """Replace a file by another, as programs do that never leave half of one."""
    new = file.with_suffix(".new")
    new.write_text(content)
    new.replace(file)


def permissions_of(policies: PolicyFile) -> set[str]:
    return set(policies.current["key:a"].permissions)


def test_a_server_does_not_start_without_a_policy(file: Path) -> None:
    file.write_text("[roles]")
    with pytest.raises(PolicyError):
        PolicyFile(file)


def test_a_file_that_has_not_changed_is_not_read_again(file: Path) -> None:
    policies = PolicyFile(file)
    before = policies.current
    policies.reload()
    assert policies.current is before


def test_a_file_that_has_changed_is_in_force(file: Path, log: Log) -> None:
    policies = PolicyFile(file)
    assert permissions_of(policies) == {"users.read"}
    replace(file, WRITES)
    policies.reload()
    assert permissions_of(policies) == {"users.write"}
    assert policies.problem is None
    assert [line["event"] for line in log.lines(file=str(file))] == ["policy in force", "policy changed"]


def test_a_file_written_in_place_is_in_force(file: Path) -> None:
    policies = PolicyFile(file)
    file.write_text(WRITES)
    policies.reload()
    assert permissions_of(policies) == {"users.write"}


def test_a_link_that_leads_elsewhere_is_followed(file: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "link", tmp_path / "other.toml"
    other.write_text(WRITES)
    link.symlink_to(file)
    policies = PolicyFile(link)
    new = tmp_path / "new"
    new.symlink_to(other)
    new.replace(link)
    policies.reload()
    assert permissions_of(policies) == {"users.write"}


def test_a_file_that_cannot_be_used_changes_nothing_and_is_logged_once(file: Path, log: Log) -> None:
    policies = PolicyFile(file)
    replace(file, "[roles]")
    for _ in range(3):
        policies.reload()
    assert permissions_of(policies) == {"users.read"}
    problem = policies.problem or ""
    assert str(file) in problem
    (line,) = log.lines(level="error")
    assert line["problems"] == problem.split("; ")
    replace(file, WRITES)
    policies.reload()
    assert permissions_of(policies) == {"users.write"}
    assert not policies.problem


def test_a_file_that_is_gone_changes_nothing_until_it_is_back(file: Path, log: Log) -> None:
    policies = PolicyFile(file)
    file.unlink()
    policies.reload()
    policies.reload()
    assert permissions_of(policies) == {"users.read"}
    assert len(log.lines(level="error")) == 1
    file.write_text(WRITES)
    policies.reload()
    assert permissions_of(policies) == {"users.write"}


def test_what_is_probably_a_mistake_is_logged(file: Path, log: Log) -> None:
    file.write_text(READS.replace("key:a", "kye:a"))
    PolicyFile(file)
    (line,) = log.lines(level="warning")
    assert "kye:a" in line["key"]


async def test_the_file_is_watched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_file, "POLL_SECONDS", 0.01)
    policies = PolicyFile(file)
    watching = asyncio.create_task(policies.watch())
    replace(file, WRITES)
    await eventually(lambda: permissions_of(policies) == {"users.write"})
    replace(file, "[roles]")
    await eventually(lambda: policies.problem)
    replace(file, READS)
    await eventually(lambda: permissions_of(policies) == {"users.read"})
    watching.cancel()
