"""The lag that is computed from WAL positions of the primary and the replica; no database."""

import math
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from service.config import ReplicaSettings, SettingsError, load
from service.db.connections.replica import LogSamples, identity_problem, replica_database

IDENTITY = {"cluster": 1, "database": 5, "timeline": "00000001"}
PRIMARY = SimpleNamespace(position=300, **IDENTITY)


def samples(*added: tuple[float, float], max_age: float = 10) -> LogSamples:
    made = LogSamples(max_age)
    for time, position in added:
        made.add(time, position)
    return made


@pytest.mark.parametrize(
    ("replayed", "fresh_time"),
    [
        (99, -math.inf),
        (100, 1),
        (199, 1),
        (200, 2),
        (300, 3),
        # The replica answers after the primary, so it may have replayed more.
        (999, 3),
    ],
)
def test_data_is_as_fresh_as_the_newest_sample_that_is_replayed(replayed: float, fresh_time: float) -> None:
    assert samples((1, 100), (2, 200), (3, 300)).fresh_time(replayed) == fresh_time


def test_data_of_a_primary_where_nothing_happens_stays_fresh() -> None:
    assert samples((1, 100), (2, 100), (3, 100)).fresh_time(100) == 3


def test_nothing_is_known_without_samples() -> None:
    assert samples().fresh_time(100) == -math.inf


def test_samples_that_are_too_old_are_dropped_except_the_last_of_them() -> None:
    made = samples((1, 100), (2, 200), (3, 300), (12.5, 400))
    assert made.fresh_time(199) == -math.inf
    assert made.fresh_time(200) == 2
    # After a pause of any length one sample before the bound is left.
    made.add(100, 500)
    assert made.fresh_time(399) == -math.inf
    assert made.fresh_time(400) == 12.5


def test_a_replica_has_the_identity_of_its_primary() -> None:
    assert identity_problem(PRIMARY, SimpleNamespace(is_replica=True, position=0, **IDENTITY)) is None


@pytest.mark.parametrize("other", [{"cluster": 2}, {"database": 6}, {"timeline": "00000002"}])
def test_a_replica_of_another_database_is_noticed(other: dict[str, object]) -> None:
    replica = SimpleNamespace(is_replica=True, position=0, **{**IDENTITY, **other})
    assert "another database" in str(identity_problem(PRIMARY, replica))


def test_a_server_that_is_no_replica_is_noticed() -> None:
    replica = SimpleNamespace(is_replica=False, position=None, **IDENTITY)
    assert "does not point to a replica" in str(identity_problem(PRIMARY, replica))


def test_the_replica_has_the_limits_of_the_primary_and_a_url_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("READ_DATABASE_URL", raising=False)
    primary = load(ReplicaSettings, DATABASE_URL="postgresql://primary/db", db_pool_size=3)
    database = replica_database(primary.model_copy(update={"read_database_url": SecretStr("postgresql://replica/db")}))
    assert database.database_url.get_secret_value() == "postgresql://replica/db"
    assert database.db_pool_size == 3
    with pytest.raises(SettingsError, match="READ_DATABASE_URL is not set"):
        replica_database(primary)
