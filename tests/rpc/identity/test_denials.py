from collections.abc import Iterator

import pytest

from service.rpc.identity.denials import MAX_LINES, PERIOD_SECONDS, Denials, denied
from service.rpc.status import status_of
from tests.support.logs import Log, logged

PATH = "/commerce.users.v1.UserService/GetUser"


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as log:
        yield log


def test_the_error_names_the_permission_and_the_identity() -> None:
    error = denied("users.read", "key:a")
    assert error.message == "the permission users.read is missing for key:a"
    assert error.metadata == {"permission": "users.read", "identity": "key:a"}
    assert denied("users.read", "key:a", "why").message == "the permission users.read is missing for key:a: why"


def test_a_long_identity_leaves_a_small_status() -> None:
    status = status_of(denied("users.read", "CN=" + "\N{PILE OF POO}" * 10_000))
    assert status is not None
    assert status.ByteSize() < 4096


def test_every_denial_is_counted_and_some_are_logged(log: Log) -> None:
    now = 100.0
    denials = Denials(lambda: now)
    for _ in range(MAX_LINES + 5):
        denials.record(PATH, denied("users.read", "key:a"))
    assert denials.counts == {(PATH, "users.read"): MAX_LINES + 5}
    assert len(log.lines(event="permission denied")) == MAX_LINES
    now += PERIOD_SECONDS
    denials.record(PATH, denied("act_for_users", "key:b"))
    denials.record(PATH, denied("act_for_users", "key:b"))
    assert denials.counts[PATH, "act_for_users"] == 2
    *_, first, second = log.lines(event="permission denied")
    assert (first["denials_not_logged"], "denials_not_logged" in second) == (5, False)
    assert (first["method"], first["permission"], first["identity"]) == (PATH, "act_for_users", "key:b")
