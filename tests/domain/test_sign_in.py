import itertools

from hypothesis import given
from hypothesis import strategies as st

from service.domain.sign_in import SignIn, forget_seconds, sign_in_delays

FREE = st.integers(min_value=1, max_value=100)
LONGEST = st.floats(min_value=0.001, max_value=86_400)
LOGINS = st.builds(
    SignIn,
    st.sampled_from(["email", "username"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5),
    st.none() | st.binary(min_size=1, max_size=3),
)


def attempts_within(seconds: float, free: int, longest: float) -> int:
    """Return how many attempts an attacker makes who never waits longer than necessary."""
    delays, time = sign_in_delays(free, longest), 0.0
    for number in itertools.count(1):
        time += delays[min(number, len(delays)) - 1]
        if time > seconds:
            return number
    raise AssertionError


def test_the_pauses_of_the_default_settings() -> None:
    assert sign_in_delays(5, 900) == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]


@given(FREE, LONGEST)
def test_there_is_no_pause_before_the_free_attempts_are_used_up_and_always_one_after(free: int, longest: float) -> None:
    delays = sign_in_delays(free, longest)
    assert all(delay == 0 for delay in delays[: free - 1])
    assert all(delay > 0 for delay in delays[free - 1 :])
    assert delays[free - 1] == min(1, longest)


@given(FREE, LONGEST)
def test_a_pause_is_at_most_twice_the_one_before_it_and_never_longer_than_the_longest(
    free: int, longest: float
) -> None:
    delays = sign_in_delays(free, longest)
    pauses = delays[free - 1 :]
    assert all(before < after <= 2 * before for before, after in itertools.pairwise(pauses))
    assert pauses[-1] == max(delays) == longest


@given(FREE, st.floats(min_value=1, max_value=86_400), st.floats(min_value=0, max_value=500))
def test_in_the_long_run_there_is_one_attempt_in_the_longest_pause(free: int, longest: float, pauses: float) -> None:
    seconds = pauses * longest
    # The doubling pauses before the longest one add at most this many attempts.
    doublings = len(sign_in_delays(1, longest))
    assert attempts_within(seconds, free, longest) <= free + doublings + seconds / longest


@given(FREE, st.floats(min_value=1, max_value=86_400))
def test_to_wait_until_attempts_are_forgotten_is_no_way_to_make_more(free: int, longest: float) -> None:
    delays = sign_in_delays(free, longest)
    for number in range(1, 2 * len(delays)):
        pauses = sum(delays[: number - 1]) + longest * max(0, number - 1 - len(delays))
        assert number / (pauses + forget_seconds(delays)) <= 1 / longest


def test_guesses_of_a_day_with_the_default_settings() -> None:
    assert attempts_within(86_400, 5, 900) == 109


@given(LOGINS, LOGINS)
def test_only_attempts_of_the_same_device_or_caller_with_the_same_login_are_counted_together(
    one: SignIn, other: SignIn
) -> None:
    def counted_as(sign_in: SignIn) -> tuple[object, ...]:
        who = sign_in.caller if sign_in.device is None else sign_in.device
        return sign_in.login_kind, sign_in.login, who

    assert (one.limited_as() == other.limited_as()) == (counted_as(one) == counted_as(other))
