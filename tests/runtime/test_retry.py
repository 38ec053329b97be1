import pytest

from service.runtime.retry import Backoff


def test_each_pause_is_longer_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(base=0.1, factor=3, cap=2.5, jitter=0)
    assert [backoff.pause(failures) for failures in range(1, 6)] == pytest.approx([0.1, 0.3, 0.9, 2.5, 2.5])


def test_pauses_double_without_a_cap_by_default() -> None:
    backoff = Backoff(base=1, jitter=0)
    assert [backoff.pause(failures) for failures in (1, 2, 11)] == [1, 2, 1024]


@pytest.mark.parametrize("jitter", [0.5, 1.0])
def test_jitter_shortens_a_pause_by_at_most_its_part(jitter: float) -> None:
    backoff = Backoff(base=8, cap=10, jitter=jitter)
    pauses = [backoff.pause(2) for _ in range(1000)]
    assert all(10 * (1 - jitter) <= pause <= 10 for pause in pauses)
    # They are spread over nearly the whole interval.
    assert min(pauses) < 10 * (1 - 0.9 * jitter)
    assert max(pauses) > 10 * (1 - 0.1 * jitter)


def test_a_pause_stays_at_the_cap_however_many_failures_there_were() -> None:
    assert Backoff(base=0.2, cap=5, jitter=0).pause(1_000_000) == 5


def test_half_of_a_pause_is_cut_off_at_most_by_default() -> None:
    pauses = [Backoff(base=8).pause(1) for _ in range(1000)]
    assert all(4 <= pause <= 8 for pause in pauses)
    assert min(pauses) < 4.4
    assert max(pauses) > 7.6


def test_a_pause_grows_for_sixty_four_failures() -> None:
    backoff = Backoff(base=1, jitter=0)
    assert [backoff.pause(failures) for failures in (64, 65, 66, 10_000)] == [2.0**63, 2.0**64, 2.0**64, 2.0**64]
