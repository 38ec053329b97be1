import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.domain.errors import UnauthenticatedCaller
from service.rpc.identity.api_keys import ApiKeys
from service.rpc.identity.caller import Caller
from service.rpc.identity.key_file import KeyFileError, format_keys, id_of, new_key, read_keys
from service.rpc.identity.refusals import Refusals
from tests.support.identities import write_keys

NOW = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def loaded(path: Path) -> ApiKeys:
    keys = ApiKeys(path, Refusals(["keys"]))
    keys.load()
    return keys


def refused(keys: ApiKeys, sent: str | bytes, problem: str = "unknown") -> None:
    with pytest.raises(UnauthenticatedCaller) as error:
        keys.caller(sent)
    assert error.value.metadata == {"credential": "API key", "problem": problem}


def test_a_key_names_its_caller(path: Path) -> None:
    billing, shop = write_keys(path, "billing", "shop")
    keys = loaded(path)
    assert (keys.caller(billing), keys.caller(shop)) == (Caller("key:billing"), Caller("key:shop"))


def test_two_keys_of_one_name_are_the_same_caller(path: Path) -> None:
    old, new = write_keys(path, "billing", "billing")
    keys = loaded(path)
    assert keys.caller(old) == keys.caller(new)


def test_other_keys_are_refused(path: Path) -> None:
    (key,) = write_keys(path, "billing")
    keys = loaded(path)
    stranger, _ = new_key("billing", NOW)
    same_id = f"commerce_{id_of(key)}_{stranger.rpartition('_')[2]}"
    for sent in (stranger, same_id, key[:-1], f"{key}x", key.upper(), f" {key}", "", "x", "é", key.encode()):
        refused(keys, sent)


def test_a_key_is_valid_until_it_expires(path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    (key,) = write_keys(path, "billing", expire_time=soon)
    seconds = soon.replace(microsecond=0).timestamp()
    clock = [seconds - 1]
    keys = ApiKeys(path, Refusals(["keys"]), lambda: clock[0])
    keys.load()
    assert keys.caller(key).name
    clock[0] = seconds
    refused(keys, key, "expired")


def test_a_changed_file_is_read_again(path: Path) -> None:
    (old,) = write_keys(path, "billing")
    keys = loaded(path)
    (new,) = write_keys(path, "billing")
    assert keys.caller(old).name
    keys.reload()
    assert keys.caller(new).name
    refused(keys, old)


@pytest.mark.parametrize("broken", [b"\xff", b"[", b"keys = 1", b"[[keys]]", b"other = 1"])
def test_the_last_good_keys_stay_in_use(path: Path, broken: bytes) -> None:
    (key,) = write_keys(path, "billing")
    keys = loaded(path)
    path.write_bytes(broken)
    keys.reload()
    assert keys.problem
    assert keys.caller(key).name
    path.unlink()
    keys.reload()
    assert keys.caller(key).name
    (new,) = write_keys(path, "billing")
    keys.reload()
    assert keys.problem is None
    assert keys.caller(new).name


def test_a_file_has_what_was_written_and_no_key(path: Path) -> None:
    made = [new_key("billing", NOW), new_key("shop", NOW, NOW + timedelta(days=90))]
    path.write_text(format_keys(stored for _, stored in made))
    stored = read_keys(path)
    assert [key.name for key in stored] == ["billing", "shop"]
    assert [key.expire_time for key in stored] == [None, NOW.replace(microsecond=0) + timedelta(days=90)]
    assert [key.create_time for key in stored] == [NOW.replace(microsecond=0)] * 2
    assert [key.sha256 for key in stored] == [hashlib.sha256(key.encode()).digest() for key, _ in made]
    assert not any(key.split("_", 2)[2] in path.read_text() for key, _ in made)


def test_keys_have_256_random_bits_and_differ() -> None:
    made = {new_key("billing", NOW)[0] for _ in range(1000)}
    assert len(made) == len({id_of(key) for key in made}) == 1000
    assert {len(key.split("_", 2)[2]) for key in made} == {43}


VALID = """\
[[keys]]
name = "billing"
id = "aaaaaaaaaa"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
create_time = 2026-11-30T12:00:00Z
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"billing"', '"bill ing"', "key 1 in the file of API keys has no valid name"),
        ('"aaaaaaaaaa"', '"AAAAAAAAAA"', "has no valid id"),
        ("9f", "zz", "has no valid sha256"),
        ("2026-11-30T12:00:00Z", "1", "has no valid create_time or expire_time"),
        ("12:00:00Z", "12:00:00", "has a time without an offset, such as Z"),
        ("create_time", "admin = true\ncreate_time", "must have only"),
        ('name = "billing"\n', "", "has no valid name"),
        ("[[keys]]", "[keys]", "nothing but"),
        (VALID, VALID * 2, "the same id twice"),
    ],
)
def test_a_file_that_is_not_valid_says_where(path: Path, old: str, new: str, problem: str) -> None:
    path.write_text(VALID)
    assert [key.name for key in read_keys(path)] == ["billing"]
    path.write_text(VALID.replace(old, new, 1))
    with pytest.raises(KeyFileError, match=problem):
        read_keys(path)


def test_a_missing_or_large_file_is_a_problem_without_its_path(path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"^the file of API keys cannot be read: No such file or directory$"):
        read_keys(path)
    path.write_text("#" * ((4 << 20) + 1))
    with pytest.raises(KeyFileError, match="larger than 4194304 bytes"):
        read_keys(path)


def test_a_file_without_keys_is_valid(path: Path) -> None:
    path.write_text(format_keys([]))
    assert read_keys(path) == []
